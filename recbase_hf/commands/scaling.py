"""`recbase scaling`: a power law through the losses of several small runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option, require_positive
from recbase_hf.files import atomic_file, write_json
from recbase_hf.planning.scaling_law import fit_scaling_law
from recbase_hf.planning.scaling_report import ScalingReport
from recbase_hf.planning.trained_runs import COUNTS, read_runs

__all__ = ["COMMAND", "Scaling", "scaling"]

COUNTED = {"tokens": "tokens trained on", "data": "distinct tokens", "parameters": "tokens trained on"}


@dataclass(frozen=True)
class Scaling:
    """Fit L = E + A / N^alpha + B / D^beta to finished runs: loss by parameters N and tokens D, where these differ."""

    runs: tuple[str, ...] = option(help="output folders of recbase pretrain, or bundles; at least 4")
    by: str = option(
        "tokens",
        help="what D counts: tokens trained on, every epoch anew, or data, each token once; parameters has no D",
        choices=COUNTS,
    )
    at_parameters: float | None = option(None, help="size of model to extend the law to; default the runs' largest")
    at_tokens: float | None = option(None, help="D to extend the law to; default the runs' largest")
    resamples: int = option(200, help="of the residuals, for the intervals")
    seed: int = option(0, help="of the resampling")
    output: str | None = option(None, help="scaling.html, with plots, or scaling.json, besides printing")

    def __post_init__(self) -> None:
        require_positive(self, "resamples")
        require_positive(self, *(name for name in ("at_parameters", "at_tokens") if getattr(self, name) is not None))
        if self.output is not None and Path(self.output).suffix not in (".html", ".json"):
            raise ValueError(f"--output {self.output} must end in .html or .json")


def scaling(options: Scaling) -> ScalingReport:
    """The law and what it says; it is also written where that is asked for.

    Raises:
        DataError: a folder is not of a finished run, or the runs cannot be compared.
        ValueError: too few runs or sizes, or a size to extend to in which the runs do not differ.
    """
    runs = read_runs(options.runs, by=options.by)
    fit = fit_scaling_law(runs, resamples=options.resamples, seed=options.seed)
    for name, letter, word in (("at_parameters", "N", "parameters"), ("at_tokens", "D", "tokens")):
        if getattr(options, name) is not None and letter not in fit.law.terms():
            raise ValueError(f"the runs do not differ in {word}, so the law says nothing about {name}")
    target = None
    if options.at_parameters is not None or options.at_tokens is not None:
        target = (
            options.at_parameters or max(run.parameters for run in runs),
            options.at_tokens or max(run.tokens for run in runs),
        )
    report = ScalingReport(fit, COUNTED[options.by], target)
    if options.output is not None and options.output.endswith(".json"):
        write_json(options.output, report.to_dict())
    elif options.output is not None:
        with atomic_file(options.output) as temporary:
            temporary.write_text(report.html().rstrip("\n") + "\n", encoding="utf-8")
    return report


def run(options: Scaling) -> Answer:
    """Print or write the law."""
    law = scaling(options)
    lines = law.lines() + ([f"\nscaling law: {options.output}"] if options.output is not None else [])
    return Answer("\n".join(lines), law.to_dict())


COMMAND = Command("scaling", Scaling, run, positional=("runs",))
