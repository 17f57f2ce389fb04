"""`recbase init`: somebody's log to a folder with tables and configurations, ready for the other commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.csv_options import CsvOptions, told_columns, told_losses
from recbase_hf.commands.data import Check, check
from recbase_hf.config import option
from recbase_hf.data.prepare.own_csv import own_data
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.files import atomic_folder

__all__ = ["COMMAND", "Init"]

_HEAD = """# recbase {command} --config {path}
# Paths are as seen from where recbase init ran. All options: recbase {command} --help; flags win over these values.
"""


@dataclass(frozen=True, kw_only=True)
class Init(CsvOptions):
    """Make a folder to work in from a log, a delimited file with a header, and maybe a file of the items.

    It gets the two tables, checked, and configurations of the next commands, to be edited. Columns that nobody names
    are recognized by usual names, such as customer_id, sku, date.
    """

    log: str = option(help="the file, an event a row")
    output: str = option("my-shop", help="the folder, which must not be there yet")
    model: str = option("recbase-mini", help="bundle: one that comes with the package, a folder or a Hub id")


def run(options: Init) -> Answer:
    """Make it, and say what comes next."""
    folder = Path(options.output)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name another --output, or delete it")
    columns, data = options.columns_of(options.log), str(folder)
    configurations = _configurations(options, folder, data)
    with atomic_folder(folder) as temporary:
        published = own_data(columns, folder.resolve().name)
        facts = prepare(published, columns.log.parent, temporary / "tables")
        for path in (temporary / "tables").iterdir():
            path.rename(temporary / path.name)
        (temporary / "tables").rmdir()
        for command, values in configurations.items():
            (temporary / f"{command}.yaml").write_text(_yaml(command, folder, values), encoding="utf-8")
    findings = check(Check(folder=data))
    commands = [shlex.join(["recbase", command, "--config", str(_path(folder, command))]) for command in configurations]
    rows = ", ".join(f"{count:,} {name}" for name, count in facts["rows"].items())
    losses = told_losses(facts, repeats=options.items is not None)
    lines = [*told_columns(columns), f"{data}: {rows}", *losses, findings.text, "next:", *(f"  {c}" for c in commands)]
    content = {"folder": str(folder), "columns": columns.event_columns(), "tables": facts, "next": commands}
    return Answer("\n".join(lines), {**content, **findings.content}, is_yes=findings.is_yes)


def _path(folder: Path, command: str) -> Path:
    return folder / f"{command}.yaml"


def _configurations(options: Init, folder: Path, data: str) -> dict[str, dict[str, Any]]:
    """By command, in the order in which somebody would run them."""
    model = options.model
    return {
        "doctor": {"items": [data], "model": model, "html": str(folder / "doctor.html")},
        "evaluate": {"model": model, "data": data, "output": str(folder / "evaluation.json")},
        "finetune": {
            "model": model,
            "data": [data],
            "output": str(folder / "finetuned"),
            "objective": "both",
            "train_rows": ["codes"],
        },
        "build-catalog": {"model": model, "items": data, "output": str(folder / "catalog")},
    }


def _yaml(command: str, folder: Path, values: dict[str, Any]) -> str:
    import yaml

    return _HEAD.format(command=command, path=_path(folder, command)) + yaml.safe_dump(values, sort_keys=False)


COMMAND = Command("init", Init, run, positional=("log",))
