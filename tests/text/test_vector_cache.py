"""The cache of vectors: the encoder is asked for new texts only, and a damaged shard is no answer."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from recbase_hf.errors import DataError
from recbase_hf.text import vector_cache
from recbase_hf.text.encoder import TextEncoder, normalize_rows
from recbase_hf.text.template import ItemTemplate
from recbase_hf.text.vector_cache import VectorCache, default_cache_folder

TEMPLATE = ItemTemplate(fields=("title",))


class HashEncoder:
    """Unit vectors from the sha256 of each text; remembers what it was asked."""

    def __init__(self, name: str = "hash", revision: str | None = None, dimension: int = 8) -> None:
        self.name, self.revision, self.dimension = name, revision, dimension
        self.asked: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        digests = [hashlib.sha256(text.encode()).digest()[: self.dimension] for text in texts]
        return normalize_rows(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, self.dimension) - 127.5)


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_only_new_distinct_texts_are_encoded_and_the_rows_follow_the_texts(tmp_path: Path) -> None:
    encoder: HashEncoder = HashEncoder()
    typed: TextEncoder = encoder
    assert VectorCache(tmp_path).encode(["a", "b", "a"], typed, TEMPLATE).shape == (3, 8)
    vectors = VectorCache(tmp_path).encode(["c", "b", "c", "a"], encoder, TEMPLATE)
    assert encoder.asked == [["a", "b"], ["c"]]
    np.testing.assert_array_equal(vectors, HashEncoder().encode(["c", "b", "c", "a"]))
    assert vectors.dtype == np.float32


@settings(max_examples=50, deadline=None)
@given(calls=st.lists(st.lists(st.text(max_size=3), max_size=6), max_size=4))
def test_cached_vectors_equal_fresh_ones_and_no_text_is_encoded_twice(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]
) -> None:
    cache, encoder = VectorCache(tmp_path_factory.mktemp("cache")), HashEncoder()
    for texts in calls:
        np.testing.assert_array_equal(cache.encode(texts, encoder, TEMPLATE), HashEncoder().encode(texts))
    asked = [text for texts in encoder.asked for text in texts]
    assert sorted(asked) == sorted({text for texts in calls for text in texts})


@pytest.mark.parametrize(
    ("encoder", "template"),
    [
        (HashEncoder(name="other"), TEMPLATE),
        (HashEncoder(revision="1"), TEMPLATE),
        (HashEncoder(), ItemTemplate(fields=("title",), lead="A film.")),
    ],
)
def test_another_encoder_revision_or_template_shares_nothing(
    tmp_path: Path, encoder: HashEncoder, template: ItemTemplate
) -> None:
    cache = VectorCache(tmp_path)
    cache.encode(["a"], HashEncoder(), TEMPLATE)
    cache.encode(["a"], encoder, template)
    assert encoder.asked == [["a"]]


def test_an_interrupted_run_keeps_what_it_had_and_the_next_one_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(HashEncoder):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            if len(self.asked) == 2:
                raise KeyboardInterrupt
            return super().encode(texts)

    monkeypatch.setattr(vector_cache, "CHUNK", 2)
    texts = ["a", "b", "c", "d", "e", "f", "g"]
    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path).encode(texts, Interrupted(), TEMPLATE)
    encoder = HashEncoder()
    vectors = VectorCache(tmp_path).encode(texts, encoder, TEMPLATE)
    assert encoder.asked == [["e", "f"], ["g"]]
    np.testing.assert_array_equal(vectors, HashEncoder().encode(texts))


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-3], lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: b""],
    ids=["truncated", "one bit flipped", "empty"],
)
def test_a_damaged_shard_is_set_aside_and_its_texts_are_encoded_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    cache = VectorCache(tmp_path)
    cache.encode(["a"], HashEncoder(), TEMPLATE)
    cache.encode(["a", "b"], HashEncoder(), TEMPLATE)
    shard = shards_in(tmp_path)[1]
    shard.write_bytes(damage(shard.read_bytes()))

    encoder = HashEncoder()
    with caplog.at_level(logging.WARNING):
        vectors = cache.encode(["a", "b"], encoder, TEMPLATE)
    assert encoder.asked == [["b"]]
    assert str(shard) in caplog.text
    np.testing.assert_array_equal(vectors, HashEncoder().encode(["a", "b"]))

    caplog.clear()
    cache.encode(["a", "b"], encoder, TEMPLATE)
    assert (len(encoder.asked), caplog.text) == (1, "")


def test_a_shard_of_another_width_is_not_used(tmp_path: Path) -> None:
    VectorCache(tmp_path).encode(["a"], HashEncoder(dimension=4), TEMPLATE)
    vectors = VectorCache(tmp_path).encode(["a", "b"], HashEncoder(dimension=8), TEMPLATE)
    np.testing.assert_array_equal(vectors, HashEncoder(dimension=8).encode(["a", "b"]))


def test_a_shard_says_to_people_what_it_holds(tmp_path: Path) -> None:
    VectorCache(tmp_path).encode(["a", "b"], HashEncoder(revision="r1"), TEMPLATE)
    (path,) = shards_in(tmp_path)
    with safe_open(path, "numpy") as shard:
        assert shard.metadata() == {
            "encoder": "hash",
            "revision": "r1",
            "template": '{"fields": ["title"], "lead": null, "version": 1}',
        }
        assert shard.get_tensor("keys").shape == (2, 16)
        assert shard.get_tensor("vectors").shape == (2, 8)


def test_two_writers_that_saw_the_same_folder_do_not_overwrite_each_other(tmp_path: Path) -> None:
    class Meanwhile(HashEncoder):
        """While it encodes, another process stores other texts."""

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            VectorCache(tmp_path).encode(["other"], HashEncoder(), TEMPLATE)
            return super().encode(texts)

    VectorCache(tmp_path).encode(["mine"], Meanwhile(), TEMPLATE)
    encoder = HashEncoder()
    VectorCache(tmp_path).encode(["mine", "other"], encoder, TEMPLATE)
    assert encoder.asked == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_vector_is_refused_with_its_row_and_not_stored(tmp_path: Path, value: float) -> None:
    class Broken(HashEncoder):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            vectors = super().encode(texts)
            vectors[np.array(texts) == "bad"] = value
            return vectors

    VectorCache(tmp_path).encode(["good"], HashEncoder(), TEMPLATE)
    with pytest.raises(DataError, match="NaN or infinity for text 2, 'bad'"):
        VectorCache(tmp_path).encode(["good", "fine", "bad"], Broken(), TEMPLATE)
    assert len(shards_in(tmp_path)) == 1


def test_vectors_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    class Short(HashEncoder):
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return super().encode(texts)[:-1]

    with pytest.raises(DataError, match=r"shape \(1, 8\), expected \(2, 8\)"):
        VectorCache(tmp_path).encode(["a", "b"], Short(), TEMPLATE)


def test_the_default_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECBASE_CACHE", str(tmp_path))
    assert default_cache_folder() == tmp_path
    monkeypatch.delenv("RECBASE_CACHE")
    assert default_cache_folder() == Path.home() / ".cache" / "recbase_hf"
