"""A trie on disk, in safetensors. Reading it maps the file into memory: it is there at once, however large it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from recbase_hf.catalog.trie import CodeTrie
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_file

__all__ = ["load_trie", "save_trie"]

FIRST_DEPTH = {"codes": 1, "parents": 1, "first_child": 0}
"""Of the fields that have an array a depth, in the order of `CodeTrie`."""

WHOLE = ("first_item", "items", "leaves")
"""The fields behind them, which are one array."""

FACTS = "trie"
"""The one entry of the metadata, JSON: safetensors writes several entries in a changing order."""


def save_trie(trie: CodeTrie, path: str | Path, codes_hash: str) -> None:
    """Write a trie, whole or not at all.

    Args:
        trie: of any size.
        path: of the file.
        codes_hash: of the codes that it was built from (`recbase_hf.catalog.index_files.hash_of_codes`).
    """
    from safetensors.numpy import save_file

    facts = {"codebook_size": trie.codebook_size, "codes_hash": codes_hash}
    with atomic_file(path) as temporary:
        save_file(_named_arrays(trie), temporary, metadata={FACTS: json.dumps(facts)})


def load_trie(path: str | Path, *, codes_hash: str, num_items: int, num_levels: int) -> CodeTrie:
    """The trie that `save_trie` wrote; its arrays are read-only windows into the file.

    Args:
        path: of the file, which must not be overwritten in place while the trie lives; replacing it is safe.
        codes_hash: of the codes that the trie must have been built from.
        num_items: rows of these codes.
        num_levels: columns of these codes.

    Raises:
        DataError: the file is damaged, or belongs to other codes.
        FileNotFoundError: there is no such file.
    """
    from safetensors import SafetensorError

    fix = "delete it (the trie is then built from the codes when it is needed), or save the catalog again"
    try:
        facts, arrays = _mapped(Path(path))
        if facts["codes_hash"] != codes_hash:
            raise DataError(f"{path} belongs to the codes of another catalog; {fix}")
        trie = _trie_of(arrays, facts["codebook_size"], num_levels)
        _require_consistent(trie, num_items)
        return trie
    except (DataError, FileNotFoundError):
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); {fix}") from error


def _named_arrays(trie: CodeTrie) -> dict[str, np.ndarray]:
    arrays = {
        f"{field}.{first + index}": array
        for field, first in FIRST_DEPTH.items()
        for index, array in enumerate(getattr(trie, field))
    }
    arrays |= {field: getattr(trie, field) for field in WHOLE}
    return {name: np.ascontiguousarray(array, dtype="<i4") for name, array in arrays.items()}


def _trie_of(arrays: dict[str, np.ndarray], codebook_size: int, num_levels: int) -> CodeTrie:
    codes, parents, first_child = (
        tuple(arrays[f"{field}.{depth}"] for depth in range(first, first + num_levels))
        for field, first in FIRST_DEPTH.items()
    )
    first_item, items, leaves = (arrays[name] for name in WHOLE)
    return CodeTrie(codebook_size, codes, parents, first_child, first_item, items, leaves)


def _mapped(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The facts in the metadata, and the arrays as windows into the file; safetensors' own for NumPy are copies."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:  # checks that the arrays fill the file without a gap
        facts = json.loads((file.metadata() or {})[FACTS])
        slices = {name: file.get_slice(name) for name in file.offset_keys()}
        lengths = {name: _length(name, part.get_dtype(), part.get_shape()) for name, part in slices.items()}
    with open(path, "rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
    content = np.asarray(np.memmap(path, dtype="<i4", mode="r", offset=8 + header_length))
    parts = np.split(content, np.cumsum(list(lengths.values()))[:-1])
    return facts, dict(zip(lengths, parts, strict=True))


def _length(name: str, dtype: str, shape: list[int]) -> int:
    if dtype != "I32" or len(shape) != 1:
        raise ValueError(f"{name} is {dtype} of shape {shape}, not a row of int32")
    return shape[0]


def _require_consistent(trie: CodeTrie, num_items: int) -> None:
    """Compare lengths, and where ranges end; not every number, which would read the whole file."""
    num_nodes = [trie.num_nodes(depth) for depth in range(trie.num_levels + 1)]
    lengths = {name: len(array) for name, array in _named_arrays(trie).items()}
    wanted = {"first_item": num_nodes[-1] + 1, "items": num_items, "leaves": num_items}
    for level in range(trie.num_levels):
        wanted |= {f"parents.{level + 1}": num_nodes[level + 1], f"first_child.{level}": num_nodes[level] + 1}
    wrong = [name for name, length in wanted.items() if lengths[name] != length]
    if wrong:
        raise ValueError(f"{wrong[0]} has {lengths[wrong[0]]:,} numbers, not {wanted[wrong[0]]:,}")
    ends = [int(ranges[-1]) for ranges in (*trie.first_child, trie.first_item)]
    if ends != [*num_nodes[1:], num_items]:
        raise ValueError(f"its ranges end at {ends}, not at {[*num_nodes[1:], num_items]}")
