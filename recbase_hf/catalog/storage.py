"""A catalog on disk: `items.parquet`, `vectors.safetensors`, `trie.safetensors` and `catalog.json` in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.bundle import require_folder_if_path
from recbase_hf.catalog.index_files import hash_of_codes
from recbase_hf.catalog.trie import CodeTrie
from recbase_hf.catalog.trie_file import load_trie, save_trie
from recbase_hf.errors import DataError
from recbase_hf.files import atomic_folder, read_json, write_json
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.hub import explained_hub_errors

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.catalog.item_catalog import ItemCatalog

__all__ = ["folder_of", "load", "save"]

FORMAT_VERSION = 1
REPO_TYPE = "dataset"
"""On the Hub: a catalog is data, which the Hub warns of in a repository of models."""
ITEMS, VECTORS, FACTS = "items.parquet", "vectors.safetensors", "catalog.json"
TRIE = "trie.safetensors"
"""Catalogs of the first releases do not have it."""
SOURCE = ("text_encoder", "text_encoder_revision", "item_template")
"""How the vectors were made; catalogs of the first releases do not say it."""


def save(catalog: ItemCatalog, folder: str | Path) -> None:
    """Write the catalog, whole or not at all; a catalog in the folder is replaced."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    arrays = {"mean": catalog.mean, "vectors": catalog.vectors}
    with atomic_folder(folder) as temporary:
        columns = {"item_id": catalog.item_ids, "title": catalog.titles, "text": catalog.texts}
        codes = pa.FixedSizeListArray.from_arrays(pa.array(catalog.codes.ravel(), pa.int32()), catalog.codes.shape[1])
        pq.write_table(pa.table({**columns, "codes": codes}), temporary / ITEMS)
        # Also where there are none, so that no vectors of an earlier catalog stay in the folder.
        save_file({name: array for name, array in arrays.items() if array is not None}, temporary / VECTORS)
        save_trie(catalog.trie, temporary / TRIE, hash_of_codes(catalog.codes, catalog.codebook_size))
        facts = {
            "format_version": FORMAT_VERSION,
            "fingerprint": catalog.fingerprint,
            "num_items": len(catalog),
            "codebook_size": catalog.codebook_size,
        }
        write_json(temporary / FACTS, {**facts, **{name: getattr(catalog, name) for name in SOURCE}})


def folder_of(name_or_path: str | Path, **hub: Any) -> Path:
    """The folder of a catalog, downloaded from the Hub if it is the id of a repository.

    Args:
        name_or_path: a folder, or an id.
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

    Raises:
        FileNotFoundError: there is no such folder or repository.
        ConnectionError: the Hub cannot be reached, and the catalog is not in the cache.
    """
    folder = Path(name_or_path)
    if folder.is_dir() or str(name_or_path).count("/") != 1:
        return folder
    require_folder_if_path(name_or_path)
    from huggingface_hub import snapshot_download

    with explained_hub_errors(str(name_or_path)):
        # All files of one commit, whoever pushes meanwhile.
        files = [FACTS, ITEMS, VECTORS, TRIE]
        return Path(snapshot_download(str(name_or_path), repo_type=REPO_TYPE, allow_patterns=files, **hub))


def load(folder: str | Path, *, tokenizer: RecBaseTokenizer | None = None) -> tuple[dict[str, Any], CodeTrie | None]:
    """The fields of the `ItemCatalog` that `save` wrote, and its trie; errors as in `ItemCatalog.from_pretrained`.

    A catalog of an earlier release has no file of the trie.
    """
    folder = Path(folder)
    for name in (FACTS, ITEMS, VECTORS):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder} is not a catalog: {name} is missing; make one with recbase build-catalog or save_pretrained"
            )
    num_items, fields = _read(folder)
    if tokenizer is not None:
        require_same_fingerprint(tokenizer=tokenizer.fingerprint, catalog=fields["fingerprint"])
    _check(folder, num_items, **fields)
    return fields, _read_trie(folder / TRIE, fields["codes"], fields["codebook_size"])


def _read(folder: Path) -> tuple[int, dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        facts = read_json(folder / FACTS)
        if facts["format_version"] > FORMAT_VERSION:
            raise DataError(f"{folder} was written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
        fields = {name: facts[name] for name in ("codebook_size", "fingerprint")}
        fields |= {name: facts.get(name) for name in SOURCE}
        table = pq.read_table(folder / ITEMS)
        names = {"item_ids": "item_id", "titles": "title", "texts": "text"}
        fields |= {field: table[column].to_pylist() for field, column in names.items()}
        codes = np.asarray(table["codes"].combine_chunks().flatten(), dtype=np.int64)
        fields["codes"] = codes.reshape(len(table), -1)
        arrays = load_file(folder / VECTORS)
        fields |= {name: arrays[name] if arrays else None for name in ("vectors", "mean")}
        return facts["num_items"], fields
    except DataError:
        raise
    except (pa.ArrowException, SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the catalog in {folder} is damaged ({error}); build it again") from error


def _read_trie(path: Path, codes: np.ndarray, codebook_size: int) -> CodeTrie | None:
    if not path.exists():
        return None
    num_items, num_levels = codes.shape
    codes_hash = hash_of_codes(codes, codebook_size)
    return load_trie(path, codes_hash=codes_hash, num_items=num_items, num_levels=num_levels)


def _check(
    folder: Path,
    num_items: int,
    *,
    item_ids: list[str],
    codes: np.ndarray,
    codebook_size: int,
    vectors: np.ndarray | None,
    mean: np.ndarray | None,
    **_others: Any,
) -> None:
    if vectors is None or mean is None:
        vectors, mean = np.zeros((num_items, 0), dtype=np.float32), np.zeros(0, dtype=np.float32)
    if not len(item_ids) == len(vectors) == num_items or mean.shape != vectors.shape[1:]:
        raise DataError(
            f"{folder}: {ITEMS} has {len(item_ids)} items, {VECTORS} {len(vectors)}, {FACTS} "
            f"{num_items} (vectors {vectors.shape}, mean {mean.shape}); they do not belong together: "
            "build the catalog again"
        )
    in_range = ((codes >= 0) & (codes < codebook_size)).all()
    if not in_range or len(set(item_ids)) < num_items or not np.isfinite(vectors).all():
        raise DataError(
            f"the catalog in {folder} was tampered with (a code out of range, an item id twice, or a vector "
            "that is not finite); build it again"
        )
