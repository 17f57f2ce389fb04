"""What a fitted scaling law says: as lines of text, as JSON content, or as one HTML file with plots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recbase_hf.pages import render_page
from recbase_hf.planning.scaling_law import ScalingFit
from recbase_hf.planning.scaling_plots import plot_law, short
from recbase_hf.version import __version__

__all__ = ["ScalingReport"]

FARTHEST = 10
"""Times the sizes of the runs up to which an extrapolation goes without a warning."""

BAD_RESIDUAL = 0.05
"""Runs of one recipe lie within a percent or two of their law."""


@dataclass(frozen=True)
class ScalingReport:
    """A fit, told to people or to programs.

    Attributes:
        fit: the law and its runs.
        counted: what its tokens count, as a heading.
        target: parameters and tokens to extend the law to, if any.
    """

    fit: ScalingFit
    counted: str
    target: tuple[float, float] | None = None

    def lines(self) -> list[str]:
        """For a terminal."""
        rows = [("run", "parameters", self.counted, "loss", "by the law", "residual"), *self._runs()]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        table = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in rows
        ]
        unknowns = [f"  {name:5} {value}  {interval}" for name, value, interval in self._unknowns()]
        return [self.fit.law.formula(), *unknowns, "", *table, *[text for note in self._notes() for text in ("", note)]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fit = self.fit
        content: dict[str, Any] = {
            "recbase_hf": __version__,
            "formula": fit.law.formula(),
            "law": asdict(fit.law),
            "intervals": fit.intervals(),
            "counted": self.counted,
            "runs": [
                {**asdict(run), "fitted": fitted, "residual": residual}
                for run, fitted, residual in zip(fit.runs, fit.fitted().tolist(), fit.residuals().tolist(), strict=True)
            ],
        }
        if self.target is not None:
            loss, interval = fit.predict(*self.target)
            content["extrapolation"] = {
                "parameters": self.target[0],
                "tokens": self.target[1],
                "loss": loss,
                "interval": interval,
                "times_beyond_the_runs": fit.reach(*self.target),
            }
        return content

    def html(self) -> str:
        """A page without scripts."""
        return render_page(
            "recbase_hf.planning",
            "scaling.html.jinja",
            version=__version__,
            formula=self.fit.law.formula(),
            notes=self._notes(),
            plots=[plot_law(self.fit, letter, self.target) for letter in reversed(self.fit.law.terms())],
            unknowns=self._unknowns(),
            counted=self.counted,
            runs=self._runs(),
        )

    def _unknowns(self) -> list[tuple[str, str, str]]:
        law, terms = self.fit.law, self.fit.law.terms()
        values = {"E": law.irreducible}
        values |= {
            greek: terms[letter].exponent for greek, letter in (("alpha", "N"), ("beta", "D")) if letter in terms
        }
        intervals = self.fit.intervals()
        return [(name, f"{value:.4f}", "[{:.4f}, {:.4f}]".format(*intervals[name])) for name, value in values.items()]

    def _runs(self) -> list[tuple[str, ...]]:
        return [
            (run.name, short(run.parameters), short(run.tokens), f"{run.loss:.4f}", f"{fitted:.4f}", f"{residual:+.2%}")
            for run, fitted, residual in zip(self.fit.runs, self.fit.fitted(), self.fit.residuals(), strict=True)
        ]

    def _notes(self) -> list[str]:
        notes = []
        unknowns = 1 + 2 * len(self.fit.law.terms())
        if len(self.fit.runs) <= unknowns + 1:
            notes.append(
                f"Only {len(self.fit.runs)} runs for {unknowns} unknowns: the residuals say little, more would help."
            )
        worst = max(abs(residual) for residual in self.fit.residuals())
        if worst > BAD_RESIDUAL:
            notes.append(f"The law does not describe these runs (largest residual {worst:.0%}): do not extend it.")
        if self.target is not None:
            loss, (low, high) = self.fit.predict(*self.target)
            at = f"{short(self.target[0])} parameters and {short(self.target[1])} tokens"
            notes.append(f"At {at}: loss {loss:.4f}, 95 % interval [{low:.4f}, {high:.4f}].")
            times = self.fit.reach(*self.target)
            if times > FARTHEST:
                notes.append(
                    f"WARNING: that is {times:,.0f} times beyond the runs, more than {FARTHEST}; the interval only "
                    "says how well the law is known, not whether it still holds there."
                )
        return notes
