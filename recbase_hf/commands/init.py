"""`recbase init`: somebody's log to a folder with tables and configurations, ready for the other commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.csv_options import CsvOptions
from recbase_hf.commands.data import Check, FromCsv, check, from_csv
from recbase_hf.config import option
from recbase_hf.files import atomic_file

__all__ = ["COMMAND", "Init"]

_HEAD = """# recbase {command} --config {path}
# All options: recbase {command} --help. What stands on the command line wins.
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
    data = str(folder / "data")
    tables = from_csv(FromCsv(**_given(options), output=data))
    findings = check(Check(folder=data))
    commands = []
    for command, values in _configurations(options, folder, data).items():
        path = folder / f"{command}.yaml"
        with atomic_file(path) as temporary:
            temporary.write_text(_yaml(command, path, values), encoding="utf-8")
        commands.append(f"recbase {command} --config {path}")
    lines = [tables.text, findings.text, "next:", *(f"  {command}" for command in commands)]
    content = {"folder": str(folder), "tables": tables.content, **findings.content, "next": commands}
    return Answer("\n".join(lines), content, is_yes=findings.is_yes)


def _given(options: Init) -> dict[str, Any]:
    """What `recbase data from-csv` is told."""
    return {name: value for name, value in vars(options).items() if name not in ("output", "model")}


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


def _yaml(command: str, path: Path, values: dict[str, Any]) -> str:
    import yaml

    return _HEAD.format(command=command, path=path) + yaml.safe_dump(values, sort_keys=False)


COMMAND = Command("init", Init, run, positional=("log",))
