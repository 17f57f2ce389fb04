"""What happens when different items get the same semantic ID: the tokenizer's collision policy, and the report.

The policies, `tokenizer.collisions`:

- `keep`: they share it.
- `reassign`: the item nearest to the semantic ID keeps it, each other takes the nearest last-level code that is free.
  The codes keep their meaning, which a balanced assignment within each colliding group, as the RecBase authors use
  it, takes from them: its codes are hardly ever the nearest.
- `digit`: the quantizer's codes are followed by one more, which counts the items that share them.

Items of identical text are one item to a text model: under every policy they share one semantic ID.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recbase_hf.catalog.measures import is_shared_by_texts, numbered_texts
from recbase_hf.catalog.trie import CodeTrie, build_trie
from recbase_hf.errors import DataError
from recbase_hf.modeling.centering import center

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer

__all__ = ["CollisionReport", "Taken", "assign_codes", "collision_report"]

CHUNK = 4096
"""Texts whose distances to all codes of the last level are held in memory at a time."""


@dataclass(frozen=True)
class CollisionReport:
    """How many items share a semantic ID; those that do score alike.

    Attributes:
        num_items: items in the catalog.
        num_semantic_ids: distinct semantic IDs among them.
        num_colliding_items: items that share their semantic ID with another item.
        num_colliding_texts: distinct texts that share their semantic ID with a different text; identical texts are one
            item to a text model, so only these are the quantizer's doing.
        num_identical_items: items that share semantic ID and text with another item.
        largest_bucket: ids of the items under the most crowded semantic ID.
    """

    num_items: int
    num_semantic_ids: int
    num_colliding_items: int
    num_colliding_texts: int
    num_identical_items: int
    largest_bucket: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.num_items:,} items, {self.num_semantic_ids:,} semantic IDs; {self.num_colliding_items:,} items "
            f"share theirs ({self.num_colliding_texts:,} different texts, {self.num_identical_items:,} items of "
            f"identical text); the largest bucket holds {len(self.largest_bucket):,}"
        )


class Taken(NamedTuple):
    """Items that keep their semantic IDs while others are added: (items, levels) int64 codes, and texts."""

    codes: np.ndarray
    texts: Sequence[str]


def collision_report(item_ids: Sequence[str], texts: Sequence[str], trie: CodeTrie) -> CollisionReport:
    """Count who shares a semantic ID with whom."""
    leaves, sizes, names = trie.leaves.astype(np.int64), trie.bucket_sizes, numbered_texts(texts)
    _, items_per_pair = np.unique(leaves * len(texts) + names, return_counts=True)
    return CollisionReport(
        num_items=len(texts),
        num_semantic_ids=len(sizes),
        num_colliding_items=int(sizes[sizes > 1].sum()),
        num_colliding_texts=len(np.unique(names[is_shared_by_texts(leaves, names)])),
        num_identical_items=int(items_per_pair[items_per_pair > 1].sum()),
        largest_bucket=tuple(item_ids[row] for row in np.flatnonzero(leaves == sizes.argmax()).tolist()),
    )


def assign_codes(
    tokenizer: RecBaseTokenizer,
    vectors: np.ndarray,
    texts: Sequence[str],
    *,
    mean: np.ndarray,
    taken: Taken | None = None,
) -> np.ndarray:
    """Semantic IDs (items, levels) int64 of items, by the tokenizer's collision policy.

    Under `reassign` and `digit` no two different texts get the same semantic ID, and all levels but the last are the
    quantizer's. Which item moves depends on the items, not on their order in the table: nearest first, and equally
    near ones by their text.

    Args:
        tokenizer: its quantizer makes the codes.
        vectors: (items, width) float32, of the text encoder.
        texts: an item each.
        mean: (width,) what is subtracted from the vectors.
        taken: items of the same catalog that have codes already, and keep them.

    Raises:
        DataError: more different texts share the earlier codes than the last level has codes.
    """
    codes = tokenizer.encode_items(vectors, mean=mean)
    if tokenizer.collisions == "keep":
        return codes
    size = tokenizer.layout.codebook_size
    if tokenizer.collisions == "digit":
        # All want 0, and the farther a number the less it is wanted.
        codes = np.column_stack([codes, np.zeros(len(codes), dtype=np.int64)])
        distances = partial(_distances_of_counter, size)
    else:
        distances = partial(_distances_of_last_level, tokenizer, vectors, codes, mean)
    return _separate(codes, texts, distances, size, taken or Taken(codes[:0], []))


Distances = Callable[[np.ndarray], np.ndarray]
"""For (n,) rows, how far (n, codebook_size) each code of the last level is from them."""


def _distances_of_counter(size: int, rows: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(size), (len(rows), size))


def _distances_of_last_level(
    tokenizer: RecBaseTokenizer, vectors: np.ndarray, codes: np.ndarray, mean: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    import torch

    centered, chosen = (torch.from_numpy(array) for array in (center(vectors[rows], mean), codes[rows]))
    return tokenizer.quantizer.last_level_distances(centered, chosen).float().cpu().numpy()


def _separate(codes: np.ndarray, texts: Sequence[str], distances: Distances, size: int, taken: Taken) -> np.ndarray:
    """The codes, with other last ones where different texts would share all of them."""
    codes, num_taken = codes.copy(), len(taken.codes)
    trie = build_trie(np.concatenate([taken.codes, codes]), size)
    leaves, names = trie.leaves.astype(np.int64), numbered_texts([*taken.texts, *texts])

    # A text that has an ID under these earlier codes gets the same.
    prefixes = trie.parents[-1][leaves].astype(np.int64)  # times the items they are beyond 32 bits
    holders = _holders(prefixes * len(names) + names, num_taken)
    codes[holders >= 0, -1] = taken.codes[holders[holders >= 0], -1]

    # What is left are groups of rows with one wanted ID and one text.
    rows = np.flatnonzero(holders < 0)
    wanted = leaves[num_taken:][rows]
    _, first, group_of_row = np.unique(
        wanted * len(names) + names[num_taken:][rows], return_index=True, return_inverse=True
    )
    settled = np.zeros(trie.num_nodes(trie.num_levels), dtype=bool)
    settled[leaves[:num_taken]] = True
    _require_room(trie, wanted[first], settled)
    last_codes = _settle(trie, rows[first], wanted[first], texts, distances, settled)
    codes[rows, -1] = last_codes[group_of_row]
    return codes


def _holders(places: np.ndarray, num_taken: int) -> np.ndarray:
    """For each row behind the taken ones the first taken row with the same number, -1 if there is none."""
    numbers, places = np.unique(places, return_inverse=True)
    holders = np.full(len(numbers), -1)
    holders[places[:num_taken][::-1]] = np.arange(num_taken)[::-1]
    return holders[places[num_taken:]]


def _require_room(trie: CodeTrie, wanted: np.ndarray, settled: np.ndarray) -> None:
    parents = trie.parents[-1]
    num_prefixes = trie.num_nodes(trie.num_levels - 1)
    new = np.bincount(parents[wanted], minlength=num_prefixes)
    old = np.bincount(parents[settled], minlength=num_prefixes)
    fullest = int((new + old).argmax())
    if new[fullest] and new[fullest] + old[fullest] > trie.codebook_size:
        raise DataError(
            f"{new[fullest] + old[fullest]} different texts share the codes {_codes_of_prefix(trie, fullest)}"
            f"{f' ({old[fullest]} have been in the catalog before)' if old[fullest] else ''}, after which only "
            f"{trie.codebook_size} differ; train a tokenizer with a larger codebook or one more level, or with "
            "another collision policy (keep lets items share an ID)"
        )


def _codes_of_prefix(trie: CodeTrie, node: int) -> list[int]:
    codes: list[int] = []
    for depth in reversed(range(trie.num_levels - 1)):
        codes.insert(0, int(trie.codes[depth][node]))
        node = int(trie.parents[depth][node])
    return codes


def _settle(
    trie: CodeTrie,
    rows: np.ndarray,
    wanted: np.ndarray,
    texts: Sequence[str],
    distances: Distances,
    settled: np.ndarray,
) -> np.ndarray:
    """Last codes (groups,) int64: the wanted one, or the nearest free one where somebody else has it.

    Args:
        rows: (groups,) a row of each group.
        wanted: (groups,) the leaf that the group's own codes lead to.
        settled: (leaves,) bool, whether it has an owner; written to.
    """
    parents, leaf_codes = trie.parents[-1], trie.codes[-1]
    last_codes = leaf_codes[wanted].astype(np.int64)
    claims = np.bincount(wanted, minlength=len(settled)) + settled
    # In an order that does not depend on the order of the rows, which also decides between equal distances.
    contested = np.flatnonzero(claims[wanted] > 1)
    contested = contested[np.lexsort((_ranks([texts[row] for row in rows[contested].tolist()]), wanted[contested]))]
    for groups in _whole_runs(contested, parents[wanted[contested]]):
        table, prefixes = distances(rows[groups]), parents[wanted[groups]]
        order = np.lexsort((table[np.arange(len(groups)), last_codes[groups]], prefixes))
        for members in np.split(order, np.flatnonzero(np.diff(prefixes[order])) + 1):
            children = slice(*trie.first_child[-1][prefixes[members[0]] :][:2])
            is_free = np.ones(trie.codebook_size, dtype=bool)
            is_free[leaf_codes[children][claims[children] > 0]] = False
            for member, group in zip(members, groups[members], strict=True):
                if not settled[wanted[group]]:
                    settled[wanted[group]] = True
                    continue
                code = np.where(is_free, table[member], np.inf).argmin()
                is_free[code] = False
                last_codes[group] = code
    return last_codes


def _whole_runs(values: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """The values in parts of about `CHUNK`; those with the same of the ascending `numbers` in the same part."""
    if not len(values):
        return []
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    cuts = starts[np.searchsorted(starts, np.arange(0, len(values), CHUNK), side="right") - 1]
    return np.split(values, np.unique(cuts)[1:])


def _ranks(texts: Sequence[str]) -> np.ndarray:
    """(texts,) int64, the place of each in the sorted order."""
    return np.argsort(sorted(range(len(texts)), key=texts.__getitem__))
