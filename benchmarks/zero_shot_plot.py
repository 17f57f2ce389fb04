"""Draws what `zero_shot.py` measured: a row a data set, a dot a ranker, with 95 % intervals, as one SVG file.

python benchmarks/zero_shot_plot.py --receipts benchmarks/receipts/zero_shot/mirrors --output docs/zero_shot.svg
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from recbase_hf.config import option, parse_arguments
from recbase_hf.evaluation.receipts import read_receipt
from recbase_hf.files import atomic_file

COLORS = {
    "RecBase joint": "#9ecae1",
    "RecBase mirrored": "#4292c6",
    "RecBase calibrated": "#6a51a3",
    "RecBase adapted": "#08306b",
    "text similarity: centered, log-sum-exp": "#e6550d",
    "text similarity and popularity, adapted": "#fdae6b",
    "SASRec (target set)": "#31a354",
}
LEFT, WIDTH, ROW, TOP = 150, 560, 44, 96
LOW, HIGH = 0.45, 1.0


@dataclass(frozen=True)
class ZeroShotPlot:
    """Dots and intervals of the rankers that matter."""

    receipts: str = option(help="folder of receipts, one a data set")
    output: str = option(help="SVG file")
    others: str | None = option(None, help="folder of receipts that have the rankers which these lack, such as SASRec")
    title: str = option("Zero-shot on the data set that was left out of everything", help="of the plot")


def draw(options: ZeroShotPlot) -> str:
    """The SVG."""
    rows = {path.stem: _figures(path) for path in sorted(Path(options.receipts).glob("*.json"))}
    for path in sorted(Path(options.others).glob("*.json")) if options.others else []:
        rows[path.stem] = {**_figures(path), **rows.get(path.stem, {})}
    names = [name for name in COLORS if any(name in row for row in rows.values())]
    height = TOP + ROW * len(rows) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(options.title)} (GAUC)</text>',
    ]
    for number, name in enumerate(names):
        x, y = 20 + 240 * (number % 3), 44 + 17 * (number // 3)
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{COLORS[name]}"/>')
        parts.append(f'<text x="{x + 10}" y="{y}" font-size="11">{escape(name)}</text>')
    for tick in range(50, 101, 10):
        x = _x(tick / 100)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{height - 30}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{height - 14}" text-anchor="middle">{tick / 100:.1f}</text>')
    for number, (data, row) in enumerate(rows.items()):
        top = TOP + ROW * number
        parts.append(f'<text x="{LEFT - 12}" y="{top + 26}" text-anchor="end">{escape(data)}</text>')
        for place, name in enumerate(name for name in names if name in row):
            y, figure = top + 6 + place * (ROW - 10) / len(names), row[name]
            line = f'x1="{_x(figure["low"])}" x2="{_x(figure["high"])}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line {line} stroke="{COLORS[name]}" stroke-width="1.5"/>')
            title = f"{name} on {data}: {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
            parts.append(
                f'<circle cx="{_x(figure["value"])}" cy="{y:.1f}" r="4" fill="{COLORS[name]}">'
                f"<title>{escape(title)}</title></circle>"
            )
    return "\n".join([*parts, "</svg>\n"])


def _figures(path: Path) -> dict[str, dict[str, float]]:
    return {row["name"]: row["metrics"]["gauc"] for row in read_receipt(path)["rankers"]}


def _x(value: float) -> float:
    return round(LEFT + WIDTH * (min(max(value, LOW), HIGH) - LOW) / (HIGH - LOW), 1)


def main() -> None:
    """Write the file."""
    options = parse_arguments(
        ZeroShotPlot, None, program="benchmarks/zero_shot_plot.py", description=ZeroShotPlot.__doc__ or ""
    )
    with atomic_file(options.output) as temporary:
        Path(temporary).write_text(draw(options), encoding="utf-8")


if __name__ == "__main__":
    main()
