"""All figures of a table, and of the tables together: the measures, with examples that people can look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recbase_hf.doctor import measures
from recbase_hf.doctor.measures import (
    BucketSizes,
    Collisions,
    DuplicateTexts,
    LevelOneInformation,
    LevelUse,
    RowGroup,
    TextCollisions,
)
from recbase_hf.doctor.tables import ItemTable
from recbase_hf.errors import DataError

__all__ = [
    "CodeFigures",
    "Example",
    "Group",
    "JointFigures",
    "ReconstructionFigures",
    "TableFigures",
    "TextFigures",
    "measure_jointly",
    "measure_table",
]

EXAMPLES = 5
CURVE_POINTS = 40
NEIGHBORS = 10


@dataclass(frozen=True)
class Example:
    """One item of a group: its row counted from 1, id and title."""

    row: int
    item_id: str
    title: str


@dataclass(frozen=True)
class Group:
    """Items with one text or one semantic ID.

    Attributes:
        codes: their semantic ID, None for a group of one text.
        num_items: items.
        num_texts: distinct texts among them, None where texts are not known.
        share: of the table's items.
        is_one_stretch: whether their rows follow one another.
        examples: up to five; of a semantic ID, items of different texts.
    """

    codes: tuple[int, ...] | None
    num_items: int
    num_texts: int | None
    share: float
    is_one_stretch: bool
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class TextFigures:
    """Figures of the texts.

    Attributes:
        num_empty: items without text.
        empty_examples: up to five of them.
        duplicates: items that share a text.
        largest_groups: the most frequent texts.
    """

    num_empty: int
    empty_examples: tuple[Example, ...]
    duplicates: DuplicateTexts
    largest_groups: tuple[Group, ...]


@dataclass(frozen=True)
class CodeFigures:
    """Figures of the semantic IDs.

    Attributes:
        collisions: items that share an ID.
        text_collisions: different texts that share an ID, None where texts are not known.
        largest_buckets: the IDs that the most items share.
        most_mixed_bucket: the ID that the most different texts share, None where no texts share one.
        bucket_sizes: how many IDs have how many items.
        last_level_counts: whether the last code only tells apart the items that share the codes before it.
        num_distinct: items whose use of codes counts: of those with one text and one ID only one does, where texts are
            known.
        levels: code use a level, of these items.
        conditional_bits: bits of each level beyond those above.
        use_curves: for each level, (rank, share of these items) points of its codes, most frequent first.
    """

    collisions: Collisions
    text_collisions: TextCollisions | None
    largest_buckets: tuple[Group, ...]
    most_mixed_bucket: Group | None
    bucket_sizes: tuple[BucketSizes, ...]
    last_level_counts: bool
    num_distinct: int
    levels: tuple[LevelUse, ...]
    conditional_bits: tuple[float, ...]
    use_curves: tuple[tuple[tuple[int, float], ...], ...]

    @property
    def describing_levels(self) -> tuple[LevelUse, ...]:
        """The levels whose use says something about the quantizer: all, but for a last one that counts."""
        return self.levels[:-1] if self.last_level_counts else self.levels


@dataclass(frozen=True)
class ReconstructionFigures:
    """Figures of what the codes decode to.

    Attributes:
        mean_cosine: of centered vectors and decoded ones.
        cosine_percentiles: 0 to 100, 101 of them.
        drift: share of items below the 1st percentile of the fitted items; None where that is not known.
        neighbor_recall: at 10; None for a table of at most 11 items, all of which are neighbors.
    """

    mean_cosine: float
    cosine_percentiles: tuple[float, ...]
    drift: float | None
    neighbor_recall: float | None


@dataclass(frozen=True)
class TableFigures:
    """All figures of one table; a part that could not be measured is None.

    Attributes:
        name: of the table.
        num_items: in the table.
        left_out: items of the source that are not in the table, by reason.
        texts: figures of the texts.
        repeated_vectors: different texts with one and the same vector.
        codes: figures of the semantic IDs.
        reconstruction: figures of what the codes decode to.
    """

    name: str
    num_items: int
    left_out: Mapping[str, int]
    texts: TextFigures | None
    repeated_vectors: TextCollisions | None
    codes: CodeFigures | None
    reconstruction: ReconstructionFigures | None


@dataclass(frozen=True)
class JointFigures:
    """Figures of all tables with codes together.

    Attributes:
        names: of the tables.
        level_one: what the first code says about the table.
        overlap: (tables, tables), how far two tables use the same first codes.
    """

    names: tuple[str, ...]
    level_one: LevelOneInformation
    overlap: tuple[tuple[float, ...], ...]


def measure_table(
    table: ItemTable, *, codebook_size: int | None, fitted_cosines: np.ndarray | None, seed: int = 0
) -> TableFigures:
    """All that can be measured on one table.

    Args:
        table: what is known of it decides what is measured.
        codebook_size: codes a level; needed if the table has codes.
        fitted_cosines: (101,) percentiles of the fitted items, or None.
        seed: of the sample of items whose neighbors are looked at.
    """
    reconstructed = table.codes is not None and table.vectors is not None and table.decoded is not None
    return TableFigures(
        name=table.name,
        num_items=len(table),
        left_out=dict(table.left_out),
        texts=None if table.texts is None else _texts(table, table.texts),
        repeated_vectors=None
        if table.texts is None or table.vectors is None
        else measures.repeated_vectors(table.vectors, table.texts),
        codes=None if table.codes is None or codebook_size is None else _codes(table, table.codes, codebook_size),
        reconstruction=_reconstruction(table, fitted_cosines, seed) if reconstructed else None,
    )


def measure_jointly(tables: Sequence[ItemTable], *, seed: int = 0) -> JointFigures | None:
    """What the first codes say about the table; None where fewer than two tables have codes.

    Raises:
        DataError: the tables differ in the number of levels.
    """
    coded = [(table.name, table.codes) for table in tables if table.codes is not None]
    levels = {name: codes.shape[1] for name, codes in coded}
    if len(set(levels.values())) > 1:
        raise DataError(f"the tables have semantic IDs of different length, {levels}: examine them one by one")
    if len(coded) < 2:
        return None
    first_codes = np.concatenate([codes[:, 0] for _, codes in coded])
    number = np.repeat(np.arange(len(coded)), [len(codes) for _, codes in coded])
    return JointFigures(
        names=tuple(name for name, _ in coded),
        level_one=measures.level_one_information(first_codes, number, seed=seed),
        overlap=tuple(map(tuple, measures.level_one_overlap(first_codes, number).tolist())),
    )


def _texts(table: ItemTable, texts: Sequence[str]) -> TextFigures:
    empty = measures.empty_texts(texts)
    return TextFigures(
        num_empty=len(empty),
        empty_examples=_examples(table, empty),
        duplicates=measures.duplicate_texts(texts),
        largest_groups=tuple(_group(table, rows, with_codes=False) for rows in measures.largest_text_groups(texts)),
    )


def _codes(table: ItemTable, codes: np.ndarray, codebook_size: int) -> CodeFigures:
    try:
        measures.code_counts(codes, codebook_size)
    except DataError as error:
        raise DataError(f"{table.name}, {error}") from None
    distinct = codes if table.texts is None else codes[measures.distinct_items(codes, table.texts)]
    mixed = [] if table.texts is None else measures.largest_buckets(codes, table.texts, count=1, by_texts=True)
    return CodeFigures(
        collisions=measures.collisions(codes),
        text_collisions=None if table.texts is None else measures.text_collisions(codes, table.texts),
        largest_buckets=tuple(_group(table, rows) for rows in measures.largest_buckets(codes, table.texts)),
        most_mixed_bucket=_group(table, mixed[0]) if mixed else None,
        bucket_sizes=tuple(measures.bucket_sizes(codes)),
        last_level_counts=_last_level_counts(table, codes),
        num_distinct=len(distinct),
        levels=tuple(measures.level_use(distinct, codebook_size)),
        conditional_bits=tuple(measures.conditional_bits(codes).tolist()),
        use_curves=tuple(_use_curve(level) for level in measures.code_counts(distinct, codebook_size)),
    )


def _reconstruction(table: ItemTable, fitted_cosines: np.ndarray | None, seed: int) -> ReconstructionFigures:
    assert table.vectors is not None
    assert table.decoded is not None
    cosines = measures.reconstruction_cosines(table.vectors, table.decoded)
    recall = None
    if len(table) > NEIGHBORS + 1:
        codes = _decoded_codes(table)
        recall = measures.neighbor_recall(table.vectors, table.decoded, codes=codes, k=NEIGHBORS, seed=seed)
    return ReconstructionFigures(
        mean_cosine=float(cosines.mean(dtype=np.float64)),
        cosine_percentiles=tuple(np.percentile(cosines, np.arange(101)).tolist()),
        drift=None if fitted_cosines is None else measures.drift(cosines, fitted_cosines),
        neighbor_recall=recall,
    )


def _decoded_codes(table: ItemTable) -> np.ndarray:
    """The codes that decide what an item decodes to."""
    assert table.codes is not None
    return table.codes[:, :-1] if _last_level_counts(table, table.codes) else table.codes


def _last_level_counts(table: ItemTable, codes: np.ndarray) -> bool:
    if table.last_level_counts is not None:
        return table.last_level_counts
    return measures.last_level_counts(codes, table.texts)


def _group(table: ItemTable, group: RowGroup, *, with_codes: bool = True) -> Group:
    codes = table.codes[group.rows[0]].tolist() if with_codes and table.codes is not None else None
    return Group(
        codes=None if codes is None else tuple(codes),
        num_items=len(group.rows),
        num_texts=group.num_texts,
        share=len(group.rows) / len(table),
        is_one_stretch=group.is_one_stretch,
        examples=_examples(table, _titles_varied(table, group.example_rows)),
    )


def _titles_varied(table: ItemTable, rows: np.ndarray) -> np.ndarray:
    """The rows, with one of each title in front: five times one title shows nothing."""
    first_row: dict[str, int] = {}
    for row in rows.tolist():
        first_row.setdefault(" ".join(table.titles[row].casefold().split()), row)
    front = np.array(list(first_row.values()), dtype=rows.dtype)
    return np.concatenate([front, np.setdiff1d(rows, front)])


def _examples(table: ItemTable, rows: np.ndarray) -> tuple[Example, ...]:
    return tuple(Example(row + 1, table.item_ids[row], table.titles[row]) for row in rows[:EXAMPLES].tolist())


def _use_curve(counts: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Shares of the used codes, most frequent first, at ranks that are even on a logarithmic scale."""
    shares = np.sort(counts[counts > 0])[::-1] / counts.sum()
    ranks = np.unique(np.geomspace(1, len(shares), CURVE_POINTS).round().astype(int))
    return tuple((rank, float(shares[rank - 1])) for rank in ranks.tolist())
