"""Text encoders: unit vectors, where the default model is looked for, and what is said when it is not found."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from recbase_hf.errors import DataError
from recbase_hf.files import sha256_of_file
from recbase_hf.text import encoder as module
from recbase_hf.text.encoder import (
    DEFAULT_TEXT_ENCODER,
    SentenceTransformerEncoder,
    load_text_encoder,
    normalize_rows,
)


class FakeSentenceTransformer:
    """Stands in for the real one: vectors of width 3 from the length of the text; `fail` as on a missing model."""

    fail: Exception | None = None

    def __init__(self, source: str, **options: Any) -> None:
        if self.fail is not None:
            raise self.fail
        self.source, self.options, self.calls = source, options, [0]

    def get_embedding_dimension(self) -> int | None:
        return None

    def encode(self, inputs: Any, **options: Any) -> np.ndarray:
        if isinstance(inputs, str):
            return np.zeros(3)
        self.calls.append(len(inputs))
        return np.array([[len(text), 2.0, 0.0] for text in inputs]) * 3


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeSentenceTransformer]:
    """A fake sentence-transformers, an empty Hugging Face cache, and no network."""

    class Fake(FakeSentenceTransformer):
        pass

    fake = ModuleType("sentence_transformers")
    fake.SentenceTransformer = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(module, "_hub_is_reachable", lambda: False)
    monkeypatch.setattr(module, "_carried_folder", lambda: None)
    return Fake


def model_of(encoder: SentenceTransformerEncoder) -> FakeSentenceTransformer:
    model = encoder._model
    assert isinstance(model, FakeSentenceTransformer)
    return model


@pytest.fixture
def carrier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed package that would fail if imported; returns its folder with the model."""
    folder = tmp_path / "site" / "fake_minilm_carrier" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_encode_gives_float32_unit_rows_in_the_order_of_the_texts_over_several_chunks(library: type) -> None:
    encoder = SentenceTransformerEncoder("some/encoder")
    texts = ["x" * (i % 7) for i in range(module.CHUNK + 5)]
    vectors = encoder.encode(texts)
    assert (encoder.dimension, vectors.shape) == (3, (len(texts), 3))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 1] * 2, [len(text) for text in texts], atol=1e-5)
    assert model_of(encoder).calls == [0, module.CHUNK, 5]


def test_no_texts_give_no_rows_of_the_right_width(library: type) -> None:
    assert SentenceTransformerEncoder("some/encoder").encode([]).shape == (0, 3)


def test_a_hub_id_is_loaded_by_name_and_from_the_cache_alone_when_offline(
    library: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"revision": "abc", "trust_remote_code": True, "device": "cpu"}
    encoder = load_text_encoder("nvidia/NV-Embed-v2", **options)  # type: ignore[arg-type]
    assert (encoder.name, encoder.revision) == ("nvidia/NV-Embed-v2", "abc")
    assert model_of(encoder).options == {**options, "local_files_only": True}
    monkeypatch.setattr(module, "_hub_is_reachable", lambda: True)
    assert model_of(load_text_encoder("some/encoder")).options["local_files_only"] is False


def test_the_default_encoder_comes_from_the_cache_then_the_package_then_the_hub(
    library: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert model_of(load_text_encoder()).source == DEFAULT_TEXT_ENCODER

    monkeypatch.setattr(module, "_carried_folder", lambda: tmp_path / "package")
    assert model_of(load_text_encoder()).source == str(tmp_path / "package")
    assert model_of(load_text_encoder(revision="abc")).source == DEFAULT_TEXT_ENCODER

    repository = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    snapshot = repository / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("123")
    (snapshot / module.WEIGHTS).touch()
    assert model_of(load_text_encoder()).source == str(tmp_path / "package"), "an incomplete cache is no cache"
    (snapshot / "1_Pooling").mkdir()
    for name in module.DEFAULT_ENCODER_FILES:
        (snapshot / name).touch()
    encoder = load_text_encoder()
    assert model_of(encoder).source == str(snapshot)
    assert (encoder.name, encoder.revision) == (DEFAULT_TEXT_ENCODER, None)


def test_a_carried_copy_is_accepted_by_its_hash_and_without_being_imported(carrier: Path) -> None:
    sha256 = sha256_of_file(carrier / "model.safetensors")
    assert module._carried_folder("fake_minilm_carrier", sha256) == carrier
    assert "fake_minilm_carrier" not in sys.modules


def test_a_carried_copy_with_other_weights_is_never_used_and_named_with_both_hashes(
    carrier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert module._carried_folder("fake_minilm_carrier") is None
    for part in (carrier / "model.safetensors", module.CARRIED_SHA256, sha256_of_file(carrier / "model.safetensors")):
        assert str(part) in caplog.text


def test_no_carrier_package_is_no_copy() -> None:
    assert module._carried_folder("no_such_package_anywhere") is None


@pytest.mark.parametrize(("name", "advice"), [(DEFAULT_TEXT_ENCODER, r"recbase-hf\[demo\]"), ("a/b", "local folder")])
def test_an_unreachable_hub_is_an_error_that_says_what_to_do(
    library: type[FakeSentenceTransformer], name: str, advice: str
) -> None:
    library.fail = OSError("couldn't connect")
    with pytest.raises(OSError, match=f"{name}.*cannot be reached.*{advice}"):
        load_text_encoder(name).encode(["a text"])


def test_an_error_of_a_reachable_hub_is_passed_on(
    library: type[FakeSentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    library.fail = OSError("some/typo is not a valid model identifier")
    monkeypatch.setattr(module, "_hub_is_reachable", lambda: True)
    with pytest.raises(OSError, match=r"^some/typo is not"):
        load_text_encoder("some/typo").encode(["a text"])


@pytest.mark.parametrize(("answer", "reachable"), [(lambda: None, True), (lambda: 1 / 0, False)])
def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any], reachable: bool) -> None:
    class Session:
        def head(self, url: str, timeout: float) -> Any:
            return answer()

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    assert module._hub_is_reachable() is reachable


def test_a_local_folder_has_its_content_as_revision(library: type, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    first = load_text_encoder(str(folder))
    assert (first.name, model_of(first).source) == (str(folder), str(folder))
    assert load_text_encoder(str(folder), first.revision).revision == first.revision

    (folder / "model.safetensors").write_bytes(b"2")
    assert load_text_encoder(str(folder)).revision != first.revision
    with pytest.raises(ValueError, match="its files were changed"):
        load_text_encoder(str(folder), first.revision)


def test_a_missing_local_folder_is_not_looked_for_on_the_hub(library: type) -> None:
    with pytest.raises(FileNotFoundError, match=r"\./no/such/encoder"):
        load_text_encoder("./no/such/encoder")


def test_a_missing_library_is_an_error_that_names_the_extra(library: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sentence_transformers")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(ImportError, match=r'pip install "recbase-hf\[text\]"'):
        SentenceTransformerEncoder("a/b").encode(["a text"])


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = "import sys, recbase_hf.text; print({'torch', 'sentence_transformers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_normalize_rows_leaves_zero_rows_and_survives_large_and_small_values() -> None:
    vectors = normalize_rows(np.array([[0, 0], [3e30, 4e30], [3e-30, 4e-30]], dtype=np.float32))
    np.testing.assert_allclose(vectors, np.array([[0, 0], [0.6, 0.8], [0.6, 0.8]]), rtol=1e-6)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_normalize_rows_names_the_first_broken_row(value: float) -> None:
    with pytest.raises(DataError, match="vector 1 holds NaN or infinity"):
        normalize_rows(np.array([[1, 0], [0, value], [value, 0]]))


@pytest.mark.skipif(importlib.util.find_spec(module.CARRIER_PACKAGE) is None, reason="the package is not installed")
def test_the_carried_default_encoder_gives_unit_vectors_that_know_what_is_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_hub_is_reachable", lambda: pytest.fail("the network was asked"))
    encoder = load_text_encoder(device="cpu")
    vectors = encoder.encode(["a cat", "a small kitten", "income tax law"])
    similarity = vectors @ vectors.T
    assert (encoder.name, encoder.dimension) == (DEFAULT_TEXT_ENCODER, 384)
    np.testing.assert_allclose(np.diag(similarity), 1, rtol=1e-6)
    assert similarity[0, 1] > 0.5 > similarity[0, 2]
