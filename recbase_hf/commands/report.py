"""`recbase report`: receipts of evaluations as tables and plots."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.comparison import read_sets
from recbase_hf.evaluation.report import render_html, render_markdown
from recbase_hf.files import atomic_file

__all__ = ["Report", "main", "report"]

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and print or write the report."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--receipts")
    options = parse_arguments(Report, arguments, program="recbase report", description=Report.__doc__ or "")
    text = report(options)
    print(text if options.output is None else f"report: {options.output}")
