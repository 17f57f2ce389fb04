"""`recbase report`: receipts of evaluations as tables and plots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option
from recbase_hf.evaluation.comparison import read_sets
from recbase_hf.evaluation.report import render_html, render_markdown
from recbase_hf.files import atomic_file

__all__ = ["COMMAND", "Report", "report"]

RENDERERS = {".html": render_html, ".md": render_markdown}


@dataclass(frozen=True)
class Report:
    """Put the receipts of evaluations side by side, as tables and plots; needs neither data nor model."""

    receipts: tuple[str, ...] = option(help="receipts that recbase evaluate wrote, or folders of them")
    metric: str = option("gauc", help="by which rankers and data sets are compared, as receipts call it: ndcg@3, ...")
    output: str | None = option(None, help="report.html or report.md; default Markdown to the terminal")

    def __post_init__(self) -> None:
        if self.output is not None and Path(self.output).suffix not in RENDERERS:
            raise ValueError(f"--output {self.output} must end in {' or '.join(RENDERERS)}")


def report(options: Report) -> str:
    """The report; it is also written where that is asked for.

    Raises:
        DataError: a file is not a receipt, a folder holds none, or a data set comes twice under one protocol and seed.
        ValueError: a receipt lacks the metric.
    """
    render = RENDERERS[Path(options.output).suffix if options.output else ".md"]
    text = render(read_sets(options.receipts), options.metric)
    if options.output is not None:
        with atomic_file(options.output) as temporary:
            temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return text


def run(options: Report) -> Answer:
    """Print or write the report."""
    text = report(options)
    content = {"file": options.output, "text": text}
    return Answer(text if options.output is None else f"report: {options.output}", content)


COMMAND = Command("report", Report, run, positional=("receipts",))
