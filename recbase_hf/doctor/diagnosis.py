"""The tokenizer doctor: a report on the semantic IDs of one or several item tables, before and after training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.doctor.figures import JointFigures, TableFigures, measure_jointly, measure_table
from recbase_hf.doctor.tables import ItemTable, table_of_catalog, table_of_items
from recbase_hf.doctor.verdicts import SEVERITIES, Finding, Severity, Thresholds, judge
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file, write_json

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.catalog import ItemCatalog

__all__ = [
    "Diagnosis",
    "Finding",
    "ItemTable",
    "Severity",
    "Thresholds",
    "diagnose",
    "diagnose_catalogs",
    "diagnose_items",
]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Diagnosis:
    """What was measured, and what it means.

    Attributes:
        findings: one verdict a check: table by table, then all tables together.
        tables: the figures of each table.
        joint: the figures of all tables together; None where fewer than two have codes.
        codebook_size: codes a level; None where no table has codes.
        fitted_cosines: 101 percentiles of the reconstruction cosine over the items that the quantizer was fitted on;
            None where they are not known.
        thresholds: by which the verdicts were found.
    """

    findings: tuple[Finding, ...]
    tables: tuple[TableFigures, ...]
    joint: JointFigures | None
    codebook_size: int | None
    fitted_cosines: tuple[float, ...] | None
    thresholds: Thresholds

    @property
    def worst(self) -> Severity:
        """The worst severity of all findings."""
        return max((finding.severity for finding in self.findings), key=SEVERITIES.index, default="ok")

    def to_dict(self) -> dict[str, Any]:
        """All of it as dictionaries, lists, texts and numbers, as JSON would give them back."""
        content = {
            "format_version": FORMAT_VERSION,
            "worst": self.worst,
            **{name: getattr(self, name) for name in ("codebook_size", "fitted_cosines")},
            "thresholds": asdict(self.thresholds),
            "findings": [asdict(finding) for finding in self.findings],
            "tables": [asdict(table) for table in self.tables],
            "joint": None if self.joint is None else asdict(self.joint),
        }
        return {name: _plain(value) for name, value in content.items()}

    def save_json(self, path: str | Path) -> None:
        """Write `to_dict` as a JSON file."""
        write_json(path, self.to_dict())

    def save_html(self, path: str | Path) -> None:
        """Write the report as one HTML file that needs nothing else."""
        from recbase_hf.doctor.html import render_html

        with atomic_file(path) as temporary:
            temporary.write_text(render_html(self), encoding="utf-8")

    def __str__(self) -> str:
        from recbase_hf.doctor.plain_text import render_text

        return render_text(self)


def diagnose(
    tables: Sequence[ItemTable],
    *,
    codebook_size: int | None = None,
    fitted_cosines: Any = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
) -> Diagnosis:
    """Measure and judge item tables.

    Args:
        tables: what is known of each decides what is measured; the rest is reported as not measured.
        codebook_size: codes a level. None takes the highest code of the tables, and says so.
        fitted_cosines: (101,) array or tensor, percentiles 0 to 100 of the reconstruction cosine over the items that
            the quantizer was fitted on. None, or NaN in it: not known.
        thresholds: of the verdicts.

    Raises:
        DataError: no table, two of one name, a code out of range, or semantic IDs of different length.

    >>> table = ItemTable("toys", ["a", "b"], ["Chess", "Go"], texts=["Chess", "Go"], codes=np.array([[1, 0], [1, 0]]))
    >>> diagnosis = diagnose([table], codebook_size=16)
    >>> diagnosis.worst
    'fault'
    >>> [finding.check for finding in diagnosis.findings if finding.severity == "fault"]
    ['collisions']
    """
    names = [table.name for table in tables]
    if not names or len(set(names)) < len(names):
        raise DataError(f"the tables are called {names}; give at least one, each with a name of its own")
    coded = [table.codes for table in tables if table.codes is not None]
    assumed = [] if codebook_size is not None or not coded else [_assumed_size(coded)]
    size = int(max(codes.max() for codes in coded)) + 1 if assumed else codebook_size
    fitted = _percentiles(fitted_cosines)
    figures = [measure_table(table, codebook_size=size, fitted_cosines=fitted) for table in tables]
    joint = measure_jointly(tables)
    return Diagnosis(
        findings=(*assumed, *judge(figures, joint, codebook_size=size, thresholds=thresholds)),
        tables=tuple(figures),
        joint=joint,
        codebook_size=size if coded else None,
        fitted_cosines=None if fitted is None else tuple(fitted.tolist()),
        thresholds=thresholds,
    )


def diagnose_catalogs(
    catalogs: Mapping[str, ItemCatalog] | Sequence[ItemCatalog],
    tokenizer: RecBaseTokenizer | None = None,
    *,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
) -> Diagnosis:
    """Measure and judge catalogs.

    Args:
        catalogs: by name; in a sequence they are called "catalog 1", "catalog 2", ..., a single one "catalog".
        tokenizer: what made them; without it nothing is decoded, so reconstruction is not measured.
        thresholds: of the verdicts.

    Raises:
        DataError: no catalog, or catalogs of different codebook sizes.
        FingerprintMismatchError: a catalog was made with another tokenizer.
    """
    named = catalogs if isinstance(catalogs, Mapping) else _named(catalogs)
    sizes = {name: catalog.codebook_size for name, catalog in named.items()}
    if len(set(sizes.values())) != 1:
        raise DataError(f"the catalogs have codebooks of {sizes or 'no'} codes; give catalogs of one tokenizer")
    return diagnose(
        [table_of_catalog(catalog, name=name, tokenizer=tokenizer) for name, catalog in named.items()],
        codebook_size=next(iter(sizes.values())),
        fitted_cosines=None if tokenizer is None else getattr(tokenizer.quantizer, "fitted_cosines", None),
        thresholds=thresholds,
    )


def diagnose_items(
    items: Any,
    vectors: np.ndarray | None = None,
    *,
    name: str | None = None,
    thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
) -> Diagnosis:
    """Measure and judge one bare item table, before there is a tokenizer (several: `diagnose` of `table_of_items`).

    Args:
        items: a file, a folder with `items.*`, a Dataset, a DataFrame, or a list of dictionaries.
        vectors: (items, width) sentence vectors as the text encoder gave them.
        name: default that of the file or folder.
        thresholds: of the verdicts.

    Raises:
        DataError: the table cannot be read, or the vectors do not fit it.

    >>> print(diagnose_items([{"item_id": 1, "title": "Chess"}, {"item_id": 2, "title": ""}]).findings[0].message)
    1 items (50.0 %) have no text, the first is '2'
    """
    return diagnose([table_of_items(items, vectors, name=name)], thresholds=thresholds)


def _named(catalogs: Sequence[ItemCatalog]) -> dict[str, ItemCatalog]:
    if len(catalogs) == 1:
        return {"catalog": catalogs[0]}
    return {f"catalog {number}": catalog for number, catalog in enumerate(catalogs, 1)}


def _assumed_size(coded: Sequence[np.ndarray]) -> Finding:
    size = int(max(codes.max() for codes in coded)) + 1
    return Finding(
        "not measured", "all tables", "codebook size",
        f"the size of the codebooks was not given; the highest code + 1 = {size:,} is taken for it",
        "give codebook_size",
    )  # fmt: skip


def _percentiles(fitted_cosines: Any) -> np.ndarray | None:
    if fitted_cosines is None:
        return None
    values = fitted_cosines.detach().cpu().numpy() if hasattr(fitted_cosines, "detach") else fitted_cosines
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (101,):
        raise DataError(f"fitted_cosines have the shape {values.shape}; give the 101 percentiles 0 to 100")
    return values if np.isfinite(values).all() else None


def _plain(value: Any) -> Any:
    """`value` as JSON would give it back; JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
