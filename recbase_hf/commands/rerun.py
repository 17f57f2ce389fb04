"""`recbase rerun`: an evaluation once more, from its receipt, and whether the same comes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbase_hf.bundle import located
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import EMBEDDED, resolve_folder
from recbase_hf.config import option
from recbase_hf.errors import DataError, FingerprintMismatchError
from recbase_hf.evaluation.comparison import differing, read_sets
from recbase_hf.evaluation.reproduction import OUTSIDE, compare, render_comparisons

if TYPE_CHECKING:
    from recbase_hf.commands.evaluate import Evaluate

__all__ = ["COMMAND", "Rerun", "rerun"]


@dataclass(frozen=True)
class Rerun:
    """Evaluate once more as a receipt says, and hold every figure against it.

    The status is 0 if all figures are equal or inside the receipt's intervals, 1 if one is outside, 2 on an error, such
    as data or a model that are not those of the receipt.
    """

    receipt: str = option(help="that recbase evaluate wrote")
    data: str | None = option(None, help="where the data set lies; default the receipt's name of it, a folder here")
    model: str | None = option(None, help="where the bundle lies, or its Hub id; default likewise")
    output: str = option("runs/rerun", help="folder for the new receipt")


def rerun(options: Rerun) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluate again; returns the content of the receipt and that of the new one.

    Raises:
        DataError: not a receipt, or the data set is not the one that it is of.
        FingerprintMismatchError: the model is not the one that it is of.
        ValueError: data or model is to be given, or the receipt holds options that this version does not know.
    """
    from recbase_hf.commands.evaluate import dataset_facts, evaluate, load_evaluation, model_facts

    if Path(options.receipt).is_dir():
        raise ValueError(f"{options.receipt} is a folder; give one receipt")
    before = read_sets([options.receipt])[0].receipt
    again = _options(options, before)
    _require_same_data(again.data, before["dataset"])
    evaluation = load_evaluation(again)
    now = dataset_facts(evaluation.domain, evaluation.task)
    for part in ("vectors_hash", "task_hash"):
        then = before["dataset"].get(part, "not said")
        if now[part] != then:
            raise DataError(
                f"{again.data}: {part} is {now[part]}, but {then} in the receipt: the tables are the same, but "
                "the item vectors, the impressions or the rules of the protocol are not"
            )
    model = model_facts(again, evaluation)
    if model is not None:
        _require_same_model(model, before["model"])
    return before, evaluate(again, evaluation=evaluation)


def _options(options: Rerun, before: dict[str, Any]) -> Evaluate:
    """Those of the receipt, with the places where things lie here."""
    from recbase_hf.commands.evaluate import Evaluate

    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in before["options"].items()
    }
    unknown = values.keys() - {field.name for field in fields(Evaluate)}
    if unknown:
        raise ValueError(
            f"{options.receipt} holds options that this recbase-hf does not know ({', '.join(sorted(unknown))}); "
            f"install the one that wrote it: {before['versions'].get('recbase-hf', 'unknown')}"
        )
    if options.model is not None and before["model"] is None:
        raise ValueError(f"{options.receipt} is of baselines alone; leave --model out")
    values["data"] = options.data or _here("data", values["data"])
    if before["model"] is not None:
        values["model"] = options.model or _here("model", values["model"])
    output = Path(options.output) / Path(options.receipt).name
    if output.resolve() == Path(options.receipt).resolve():
        raise ValueError(f"--output {options.output} holds {options.receipt}, which must stay; give another folder")
    return Evaluate(**{**values, "output": str(output)})


def _here(what: str, name: str) -> str:
    """The name that a receipt holds, if there is such a folder."""
    if name.startswith(EMBEDDED) or Path(located(name)).is_dir():
        return name
    raise ValueError(f"the {what} of the receipt, {name}, is no folder here; say where it lies with --{what}")


def _require_same_data(data: str, dataset: dict[str, Any]) -> None:
    from recbase_hf.data.blocks import hash_of_tables

    folder = resolve_folder(data)
    found = hash_of_tables(folder, folder)
    if found != dataset["hash"]:
        raise DataError(
            f"{data} has the hash {found}, but the receipt is of {dataset['name']} with the hash {dataset['hash']}; "
            "prepare the data set as it was, or give its folder with --data"
        )


def _require_same_model(found: dict[str, Any], model: dict[str, Any]) -> None:
    for part in ("fingerprint", "weights", "calibration"):
        if found[part] != model[part]:
            raise FingerprintMismatchError(
                f"the model here has the {part} {found[part]}, but the receipt is of {model['name']} with the {part} "
                f"{model[part]}; give its bundle with --model"
            )


def run(options: Rerun) -> Answer:
    """Evaluate and say what came out; the answer is no where a figure is outside the receipt's interval."""
    before, after = rerun(options)
    comparisons = compare(before, after)
    differences = [
        difference
        for part in ("protocol", "versions", "hardware")
        for difference in differing(before[part], after[part])
    ]
    verdicts = Counter(comparison.verdict for comparison in comparisons)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    lines = [render_comparisons(comparisons), "", *(f"not as it was: {difference}" for difference in differences)]
    content = {
        "verdicts": dict(verdicts),
        "figures": [{**asdict(comparison), "verdict": comparison.verdict} for comparison in comparisons],
        "differences": differences,
    }
    text = "\n".join([*lines, f"{options.receipt}: {counts}"])
    return Answer(text, content, is_yes=not verdicts[OUTSIDE])


COMMAND = Command("rerun", Rerun, run, positional=("receipt",))
