"""The index finds what a dictionary finds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbase_hf.data import id_index
from recbase_hf.data.id_index import IdIndex, hash_texts

TEXTS = st.lists(st.none() | st.text(max_size=20) | st.sampled_from(["a", "b", "x" * 8, "x" * 9]), max_size=30)


def found_by_dictionary(ids: list[str | None], queries: list[str | None]) -> list[int]:
    rows = {name: row for row, name in reversed(list(enumerate(ids)))}
    return [-1 if name is None else rows.get(name, -1) for name in queries]


@settings(max_examples=60, deadline=None)
@given(ids=TEXTS, queries=TEXTS, block=st.integers(1, 8))
def test_the_index_is_exact(ids: list[str | None], queries: list[str | None], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_index, "_TEXTS_A_BLOCK", block)
        index = IdIndex(ids)
        assert index.find(queries + ids).tolist() == found_by_dictionary(ids, queries + ids)
        assert len(index) == len(ids)


def test_ids_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index, "hash_texts", lambda texts: np.full(len(texts), 7, np.uint64))
    assert IdIndex(["a", "b", "c", "b"]).find(["c", "b", "d", "a"]).tolist() == [2, 1, -1, 0]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_any_column_of_texts_will_do(kind: pa.DataType) -> None:
    ids = pa.chunked_array([pa.array(["no", "a", None]).cast(kind).slice(1), pa.array(["é" * 9]).cast(kind)])
    assert IdIndex(ids).find(ids).tolist() == [0, -1, 2]
    assert IdIndex(ids.slice(2)).find(ids).tolist() == [-1, -1, 0]


def test_hashes_are_the_same_for_ever_and_for_slices() -> None:
    texts = pa.array(["", "a", "12345678", "123456789", None])
    assert hash_texts(texts)[1:3].tolist() == hash_texts(texts.slice(1, 2)).tolist()
    assert len(set(hash_texts(texts).tolist())) == 4
    assert hash_texts(["a"]).tolist() == [6774081908283191102]
