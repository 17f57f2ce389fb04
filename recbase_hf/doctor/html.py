"""The diagnosis as one HTML file: no script, nothing from elsewhere, every text from a user's table escaped."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from recbase_hf.doctor.figures import TableFigures
from recbase_hf.doctor.plain_text import figure_table, level_table, sorted_findings
from recbase_hf.doctor.plots import plot_bits, plot_bucket_sizes, plot_code_use, plot_cosines, plot_overlap
from recbase_hf.doctor.verdicts import SEVERITIES
from recbase_hf.pages import Plot, render_page
from recbase_hf.version import __version__

if TYPE_CHECKING:
    from recbase_hf.doctor.diagnosis import Diagnosis

__all__ = ["render_html"]

TEMPLATE = "report.html.jinja"


def render_html(diagnosis: Diagnosis) -> str:
    """The report as an HTML document."""
    findings = sorted_findings(diagnosis.findings)
    counts = Counter(finding.severity for finding in findings)
    return render_page(
        "recbase_hf.doctor",
        TEMPLATE,
        version=__version__,
        worst=diagnosis.worst,
        counts=[(severity, counts[severity]) for severity in reversed(SEVERITIES) if counts[severity]],
        num_items=sum(table.num_items for table in diagnosis.tables),
        codebook_size=diagnosis.codebook_size,
        findings=[finding for finding in findings if finding.severity != "ok"],
        passed=[finding for finding in findings if finding.severity == "ok"],
        figures=figure_table(diagnosis.tables),
        tables=[_table(table, diagnosis) for table in diagnosis.tables],
        overlap=None if diagnosis.joint is None else plot_overlap(diagnosis.joint),
        joint=diagnosis.joint,
    )


def _table(table: TableFigures, diagnosis: Diagnosis) -> dict[str, Any]:
    groups = table.texts.largest_groups if table.texts else ()
    return {
        "name": table.name,
        "levels": [line[1:] for line in level_table([table])],
        "plots": _plots(table, diagnosis),
        "buckets": table.codes.largest_buckets if table.codes else (),
        "groups": groups,
    }


def _plots(table: TableFigures, diagnosis: Diagnosis) -> list[Plot]:
    plots = []
    if table.codes is not None and diagnosis.codebook_size is not None:
        plots += [
            plot_code_use(table.codes, diagnosis.codebook_size),
            plot_bits(table.codes, diagnosis.codebook_size, table.num_items),
            plot_bucket_sizes(table.codes),
        ]
    if table.reconstruction is not None:
        plots.append(plot_cosines(table.reconstruction.cosine_percentiles, diagnosis.fitted_cosines))
    return plots
