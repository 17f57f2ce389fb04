"""The diagnosis as text for a terminal: the verdicts, worst first, and a compact table of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recbase_hf.doctor.figures import TableFigures
from recbase_hf.doctor.verdicts import SEVERITIES, Finding

if TYPE_CHECKING:
    from recbase_hf.doctor.diagnosis import Diagnosis

__all__ = ["figure_table", "level_table", "render_text", "sorted_findings"]

ABSENT = "–"


def render_text(diagnosis: Diagnosis) -> str:
    """Verdicts and figures, aligned."""
    parts = [_verdicts(diagnosis), _aligned(figure_table(diagnosis.tables))]
    levels = level_table(diagnosis.tables)
    return "\n\n".join([*parts, _aligned(levels)] if len(levels) > 1 else parts)


def sorted_findings(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, worst first, otherwise in their order."""
    return sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))


def figure_table(tables: Sequence[TableFigures]) -> list[list[str]]:
    """A header and one line a table."""
    header = [
        "table", "items", "no text", "texts", "repeated", "IDs", "colliding texts", "largest bucket", "cosine",
        "drift", "neighbor recall",
    ]  # fmt: skip
    return [header, *map(_figure_line, tables)]


def level_table(tables: Sequence[TableFigures]) -> list[list[str]]:
    """A header and one line a table and level."""
    header = ["table", "level", "used codes", "perplexity", "of codebook", "top code", "lowest 8", "bits"]
    lines = [
        [
            table.name,
            str(number),
            f"{level.used:,}",
            f"{level.perplexity:,.1f}",
            share(level.perplexity_share),
            share(level.top_share),
            share(level.first_codes_share),
            f"{bits:.2f}",
        ]
        for table in tables
        if table.codes is not None
        for number, (level, bits) in enumerate(zip(table.codes.levels, table.codes.conditional_bits, strict=True), 1)
    ]
    return [header, *lines]


def share(value: float | None) -> str:
    """A share as a percentage."""
    return ABSENT if value is None else f"{100 * value:.1f} %"


def _figure_line(table: TableFigures) -> list[str]:
    texts, codes, made = table.texts, table.codes, table.reconstruction
    collisions = codes.text_collisions if codes else None
    buckets = codes.largest_buckets if codes else ()
    return [
        table.name,
        f"{table.num_items:,}",
        f"{texts.num_empty:,}" if texts else ABSENT,
        f"{texts.duplicates.num_texts:,}" if texts else ABSENT,
        share(texts.duplicates.share if texts else None),
        f"{codes.collisions.num_ids:,}" if codes else ABSENT,
        share(collisions.share if collisions else None),
        f"{buckets[0].num_items if buckets else 1:,}" if codes else ABSENT,
        f"{made.mean_cosine:.3f}" if made else ABSENT,
        share(made.drift if made else None),
        share(made.neighbor_recall if made else None),
    ]


def _verdicts(diagnosis: Diagnosis) -> str:
    findings = sorted_findings(diagnosis.findings)
    columns = [[finding.severity.upper(), finding.subject, finding.check] for finding in findings]
    widths = [max(map(len, column)) for column in zip(*columns, strict=True)]
    lines = []
    for finding, cells in zip(findings, columns, strict=True):
        head = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{head}  {_one_line(finding.message)}" + (f" → {finding.fix}" if finding.fix else ""))
    return "\n".join(lines)


def _one_line(text: str) -> str:
    """Titles come from users' tables and may hold line breaks and control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _aligned(table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in table
    )
