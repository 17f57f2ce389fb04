"""Draws what `finetune.py` measured: GAUC by users to learn from, a panel a data set, a line a ranker, as one SVG file.

python benchmarks/finetune_plot.py --receipts benchmarks/receipts/finetune --output docs/finetuning.svg
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from recbase_hf.config import option, parse_arguments
from recbase_hf.files import atomic_file, read_json

LINES = {
    ("zero-shot", "RecBase joint"): ("zero-shot", "#9ecae1"),
    ("LoRA", "RecBase joint"): ("LoRA", "#4292c6"),
    ("full fine-tuning", "RecBase joint"): ("full fine-tuning", "#08306b"),
    ("full fine-tuning", "RecBase adapted"): ("full fine-tuning, adapted", "#6a51a3"),
    ("no model", "text similarity and popularity, adapted"): ("text and popularity, adapted", "#e6550d"),
    ("SASRec", "SASRec (target set)"): ("SASRec", "#31a354"),
}
WIDTH, HEIGHT, GAP, TOP, LEFT = 240, 220, 46, 84, 48
LOW, HIGH = 0.5, 1.0


@dataclass(frozen=True)
class FineTunePlot:
    """Curves with 95 % intervals."""

    receipts: str = option(help="folder of receipts, one a data set and number of users")
    output: str = option(help="SVG file")


def draw(receipts: Path) -> str:
    """The SVG."""
    sets: dict[str, list[dict[str, Any]]] = {}
    found = sorted((read_json(path) for path in receipts.glob("*.json")), key=lambda one: one["learning_users"])
    for receipt in found:
        sets.setdefault(receipt["dataset"]["name"], []).append(receipt)
    width, height = LEFT + len(sets) * (WIDTH + GAP), TOP + HEIGHT + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="12" y="22" font-size="15">GAUC by the number of users to learn from</text>',
    ]
    for number, (name, color) in enumerate(LINES.values()):
        x, y = 16 + 230 * (number % 3), 42 + 16 * (number // 3)
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{color}"/><text x="{x + 9}" y="{y}">{name}</text>')
    for number, name in enumerate(sorted(sets)):
        parts += _panel(name, sets[name], LEFT + number * (WIDTH + GAP))
    return "\n".join([*parts, "</svg>\n"])


def _panel(name: str, receipts: list[dict[str, Any]], left: float) -> list[str]:
    parts = [f'<text x="{left + WIDTH / 2}" y="{TOP - 6}" text-anchor="middle">{escape(name)}</text>']
    for tick in range(5, 11):
        y = _y(tick / 10)
        parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{tick / 10:.1f}</text>')
    users = [receipt["learning_users"] for receipt in receipts]
    places = [_x(count, users, left) for count in users]
    for x, count in zip(places, users, strict=True):
        parts.append(f'<text x="{x}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{count:,}</text>')
    for (ranker, score), (label, color) in LINES.items():
        figures = [
            next(row["figures"][score]["gauc"] for row in receipt["rows"] if row["name"] == ranker)
            for receipt in receipts
        ]
        points = " ".join(f"{x},{_y(figure['value'])}" for x, figure in zip(places, figures, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        for x, figure, count in zip(places, figures, users, strict=True):
            low, high, middle = (_y(figure[part]) for part in ("low", "high", "value"))
            title = (
                f"{label}, {name}, {count:,} users: {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
            )
            parts.append(f'<line x1="{x}" x2="{x}" y1="{low}" y2="{high}" stroke="{color}"/>')
            parts.append(
                f'<circle cx="{x}" cy="{middle}" r="3.5" fill="{color}"><title>{escape(title)}</title></circle>'
            )
    return parts


def _x(count: int, users: list[int], left: float) -> float:
    """Of a logarithmic axis."""
    first, last = math.log(min(users)), math.log(max(users))
    share = (math.log(count) - first) / (last - first) if last > first else 0.5
    return round(left + 16 + (WIDTH - 32) * share, 1)


def _y(value: float) -> float:
    return round(TOP + HEIGHT * (HIGH - min(max(value, LOW), HIGH)) / (HIGH - LOW), 1)


def main() -> None:
    """Write the file."""
    program, text = "benchmarks/finetune_plot.py", FineTunePlot.__doc__ or ""
    options = parse_arguments(FineTunePlot, None, program=program, description=text)
    with atomic_file(options.output) as temporary:
        Path(temporary).write_text(draw(Path(options.receipts)), encoding="utf-8")


if __name__ == "__main__":
    main()
