"""The geometry of the report's plots: lines, bars and labels in the coordinates of an SVG, which the template draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from recbase_hf.doctor.figures import CodeFigures, JointFigures
from recbase_hf.pages import SERIES, Bar, Label, Line, Plot, polyline, scale

__all__ = ["plot_bits", "plot_bucket_sizes", "plot_code_use", "plot_cosines", "plot_overlap"]

LEFT, RIGHT, TOP, BOTTOM = 60, 396, 14, 206


def plot_code_use(codes: CodeFigures, codebook_size: int) -> Plot:
    """A curve a level: the share of the items that each code has, codes in order of use, both scales logarithmic."""
    plot = Plot(
        "Use of the codes",
        f"Share of the items with each code, the most used first. An even use of all {codebook_size:,} codes is the "
        "dashed line; a curve that ends early leaves the other codes unused.",
    )
    smallest = min(share for curve in codes.use_curves for _, share in curve)
    decades = max(1.0, -math.log10(min(smallest, 1 / codebook_size)) + 0.1)
    x, y = scale(0, math.log10(max(codebook_size, 10)), LEFT, RIGHT), scale(0, -decades, TOP, BOTTOM)
    for power in range(math.floor(decades) + 1):
        _horizontal(plot, y(-power), f"{100 / 10**power:g} %")
    ranks = [10**power for power in range(math.floor(math.log10(max(codebook_size, 10))) + 1)]
    for rank in ranks:
        plot.labels.append(Label(x(math.log10(rank)), BOTTOM + 18, f"{rank:,}"))
    _axis_name(plot, "rank of the code")
    even = y(-math.log10(codebook_size))
    plot.lines.append(Line(polyline([(x(0), even), (x(math.log10(codebook_size)), even)]), "reference"))
    for level, curve in enumerate(codes.use_curves):
        points = [(x(math.log10(rank)), y(math.log10(share))) for rank, share in curve]
        end = (points[-1][0], float(BOTTOM))  # down to zero: no further code is used
        plot.lines.append(Line(polyline([*points, end]), f"series-{level % SERIES}"))
        plot.labels.append(
            Label(RIGHT - 4, TOP + 14 + 16 * level, f"level {level + 1}", "end", f"name series-{level % SERIES}")
        )
    return plot


def plot_bits(codes: CodeFigures, codebook_size: int, num_items: int) -> Plot:
    """A bar a level: bits beyond the levels above, and the most that a level can say."""
    most = math.log2(max(min(codebook_size, num_items), 2))
    plot = Plot(
        "Bits a level adds",
        f"What each code says that those before it do not. The dashed line is the most that a level can say here, "
        f"{most:.1f} bits.",
    )
    y = scale(0, most * 1.12, BOTTOM, TOP)
    step = 1 if most <= 6 else 2
    for bits in range(0, math.floor(most) + 1, step):
        _horizontal(plot, y(bits), str(bits))
    plot.lines.append(Line(polyline([(LEFT, y(most)), (RIGHT, y(most))]), "reference"))
    names = [f"level {number}" for number in range(1, len(codes.levels) + 1)]
    shown = [f"{bits:.2f}" for bits in codes.conditional_bits]
    _add_bars(plot, codes.conditional_bits, names, shown, y)
    return plot


def plot_bucket_sizes(codes: CodeFigures) -> Plot:
    """A bar a class of bucket size: the share of the items in such buckets."""
    plot = Plot(
        "Items by the size of their bucket",
        "How many items share a semantic ID. Items of the first bar have one to themselves.",
    )
    total = codes.collisions.num_items
    shares = [size.num_items / total for size in codes.bucket_sizes]
    y = scale(0, 1.1, BOTTOM, TOP)
    for percent in (0, 25, 50, 75, 100):
        _horizontal(plot, y(percent / 100), f"{percent} %")
    names = [
        str(size.smallest) if size.smallest == size.largest else f"{size.smallest}–{size.largest}"
        for size in codes.bucket_sizes
    ]
    titles = [
        f"{name}: {size.num_items:,} items under {size.num_ids:,} IDs"
        for name, size in zip(names, codes.bucket_sizes, strict=True)
    ]
    shown = [f"{100 * share:.0f} %" if share else "" for share in shares]
    _add_bars(plot, shares, _thinned(names, 8), shown if len(shares) <= 10 else [""] * len(shares), y, titles)
    _axis_name(plot, "items that share the ID")
    return plot


def plot_cosines(percentiles: Sequence[float], fitted: Sequence[float] | None) -> Plot:
    """The reconstruction cosine by percentile, beside that of the items the quantizer was fitted on."""
    plot = Plot(
        "Reconstruction",
        "Cosine of an item's centered vector and what its codes decode to, from the worst item to the best."
        + (" Dashed: the items that the quantizer was fitted on." if fitted else ""),
    )
    lowest = min(0.0, math.floor(5 * min([*percentiles, *(fitted or ())])) / 5)
    x, y = scale(0, 100, LEFT, RIGHT), scale(lowest, 1.0, BOTTOM, TOP)
    for tenth in range(round(lowest * 10), 11, 2):
        _horizontal(plot, y(tenth / 10), f"{tenth / 10:.1f}")
    for percent in (0, 25, 50, 75, 100):
        plot.labels.append(Label(x(percent), BOTTOM + 18, f"{percent} %"))
    _axis_name(plot, "share of the items")
    if fitted:
        plot.lines.append(Line(polyline((x(p), y(cosine)) for p, cosine in enumerate(fitted)), "reference"))
    plot.lines.append(Line(polyline((x(p), y(cosine)) for p, cosine in enumerate(percentiles)), "series-0"))
    return plot


def plot_overlap(joint: JointFigures) -> Plot:
    """A cell a pair of tables: how far they use the same first codes."""
    cell, margin, top = 46, 150, 30
    count = len(joint.names)
    plot = Plot(
        "First codes in common",
        "1 where two tables use the first codes alike, 0 where they share none. Zeros off the diagonal mean that the "
        "first code is a label of the table.",
        width=margin + cell * count + 10,
        height=top + cell * count + 10,
    )
    for row, (name, overlaps) in enumerate(zip(joint.names, joint.overlap, strict=True)):
        middle = top + cell * (row + 0.5) + 4
        plot.labels.append(Label(margin - 8, middle, f"{_cut(name, 17)} {row + 1}", "end", "tick", title=name))
        plot.labels.append(Label(margin + cell * (row + 0.5), top - 9, str(row + 1), title=name))
        for column, overlap in enumerate(overlaps):
            left = margin + cell * column
            title = f"{name} and {joint.names[column]}: {overlap:.3f}"
            plot.bars.append(Bar(left + 1, top + cell * row + 1, cell - 2, cell - 2, title, 0.04 + 0.6 * overlap))
            plot.labels.append(Label(left + cell / 2, middle, f"{overlap:.2f}", kind="value"))
    return plot


# ---- helpers -----------------------------------------------------------------------------------------------------


def _horizontal(plot: Plot, y: float, text: str) -> None:
    plot.lines.append(Line(polyline([(LEFT, y), (RIGHT, y)]), "grid"))
    plot.labels.append(Label(LEFT - 7, y + 4, text, "end"))


def _axis_name(plot: Plot, text: str) -> None:
    plot.labels.append(Label((LEFT + RIGHT) / 2, plot.height - 8, text))


def _add_bars(
    plot: Plot,
    values: Sequence[float],
    names: Sequence[str],
    shown: Sequence[str],
    y: Callable[[float], float],
    titles: Sequence[str] | None = None,
) -> None:
    step = (RIGHT - LEFT) / len(values)
    width = min(step * 0.7, 60)
    for number, value in enumerate(values):
        middle = LEFT + step * (number + 0.5)
        title = titles[number] if titles else f"{names[number]}: {shown[number]}"
        plot.bars.append(
            Bar(round(middle - width / 2, 2), y(value), round(width, 2), round(BOTTOM - y(value), 2), title)
        )
        plot.labels.append(Label(round(middle, 2), BOTTOM + 18, names[number]))
        plot.labels.append(Label(round(middle, 2), y(value) - 5, shown[number], kind="value"))


def _thinned(names: Sequence[str], most: int) -> list[str]:
    """Every name, every second or every third, so that they do not run into each other."""
    step = math.ceil(len(names) / most)
    return [name if number % step == 0 else "" for number, name in enumerate(names)]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
