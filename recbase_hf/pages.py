"""Reports as one HTML file: no script, nothing from elsewhere, every text from a user's data escaped.

Templates lie beside the modules that fill them. `{% import "page.html.jinja" as page %}` gives them what the reports
share: `page.style()` for the head and `page.draw(plot)`, whose geometry is that of `Plot`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

__all__ = ["SERIES", "Bar", "Label", "Line", "Plot", "polyline", "render_page", "scale"]

SERIES = 6
"""Colors that lines and bars are told apart by, `series-0` and so on."""

_SHARED = "page.html.jinja"


@dataclass(frozen=True)
class Line:
    """A polyline; `kind` is its CSS class."""

    points: str
    kind: str


@dataclass(frozen=True)
class Bar:
    """A rectangle; `strength` in [0, 1] is its opacity, `title` what is shown when one points at it."""

    x: float
    y: float
    width: float
    height: float
    title: str
    strength: float = 1.0
    kind: str = "bar"


@dataclass(frozen=True)
class Label:
    """A text at a point; `anchor` is start, middle or end, `kind` its CSS class."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    kind: str = "tick"
    title: str = ""


@dataclass(frozen=True)
class Plot:
    """What the template needs to draw one plot.

    Attributes:
        title: of the plot.
        caption: how to read it.
        width: of the drawing, in its own units.
        height: likewise.
        lines: drawn first, grid before data.
        bars: drawn next.
        labels: drawn last.
    """

    title: str
    caption: str
    width: float = 420
    height: float = 250
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From values between `low` and `high` to coordinates between `start` and `end`.

    >>> scale(0, 10, 100, 200)(5)
    150.0
    """
    return lambda value: round(start + (end - start) * (value - low) / (high - low), 2)


def polyline(points: Iterable[tuple[float, float]]) -> str:
    """Points as a `Line` takes them.

    >>> polyline([(0, 1.5), (2, 3)])
    '0,1.5 2,3'
    """
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def render_page(package: str, template: str, **values: Any) -> str:
    """Fill a template, which escapes all values.

    Args:
        package: in whose folder the template lies.
        template: its file name.
        **values: what it names; one that is missing is an error.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    sources = {
        _SHARED: files("recbase_hf").joinpath(_SHARED).read_text(encoding="utf-8"),
        template: files(package).joinpath(template).read_text(encoding="utf-8"),
    }
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)
