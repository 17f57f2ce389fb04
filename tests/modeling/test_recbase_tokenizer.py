"""The tokenizer: ids in a fixed layout, codes that mean the same everywhere, folders that come back or are refused."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from recbase_hf.modeling.centering import center, shrunk_mean
from recbase_hf.modeling.token_layout import TokenLayout
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from quantizers.small_quantizers import small_quantizer
from recbase_hf import RecBaseTokenizer
from recbase_hf.quantizers.kinds import KINDS
from tiny_world import WIDTH, make_tokenizer

LEVELS, SIZE = 4, 8
code_rows = st.integers(0, 12).flatmap(
    lambda items: arrays(np.int64, (items, LEVELS), elements=st.integers(0, SIZE - 1))
)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(LEVELS, SIZE)


def vectors_of(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# ---- layout --------------------------------------------------------------------------------------------------------


def test_the_published_recbase_ids_are_valid_as_they_stand():
    layout = TokenLayout(num_levels=4, codebook_size=1024)
    assert layout.ids_to_codes([[139, 1321, 2914, 3078]]).tolist() == [[138, 296, 865, 5]]
    assert layout.codes_to_ids([[138, 296, 865, 5]]).tolist() == [[139, 1321, 2914, 3078]]
    for level in range(4):
        for code in (0, 1, 1023):
            row = [0] * 4
            row[level] = code
            assert layout.codes_to_ids([row])[0, level] == code + 1 + 1024 * level
    assert (layout.pad, layout.bos, layout.num_tokens) == (0, 4097, 4101)


def test_the_vocabulary_follows_the_layout(tokenizer):
    names = [
        "<pad>",
        *(f"<{letter}_{code}>" for letter in "abcd" for code in range(SIZE)),
        "<bos>",
        "<eos>",
        "<unk>",
        "<mask>",
    ]
    assert tokenizer.get_vocab() == {name: index for index, name in enumerate(names)}
    assert len(tokenizer) == tokenizer.vocab_size == tokenizer.layout.num_tokens
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id) == (tokenizer.layout.pad, tokenizer.layout.bos)
    assert tokenizer.convert_ids_to_tokens(999) == "<unk>"


@given(codes=code_rows)
@settings(max_examples=40, deadline=None)
def test_codes_ids_and_text_turn_into_each_other(tokenizer, codes):
    assert tokenizer.ids_to_codes(tokenizer.codes_to_ids(codes)).tolist() == codes.tolist()
    history = tokenizer.encode_history(codes)
    assert history[0] == tokenizer.bos_token_id
    assert tokenizer.decode_history(history).tolist() == codes.tolist()
    assert tokenizer.decode_history([0, 0, *history, tokenizer.eos_token_id]).tolist() == codes.tolist()
    text = "".join(f"<{'abcd'[level]}_{code}>" for row in codes for level, code in enumerate(row))
    assert tokenizer(text)["input_ids"] == history
    assert tokenizer.decode(history, skip_special_tokens=True) == text


def test_wrong_codes_and_ids_are_named(tokenizer):
    with pytest.raises(ValueError, match="item 1, level 2: code 8 is not between 0 and 7"):
        tokenizer.codes_to_ids([[0, 0, 0, 0], [0, 0, 8, 0]])
    with pytest.raises(ValueError, match="item 0, level 3: code -1"):
        tokenizer.encode_history([[0, 0, 0, -1]])
    with pytest.raises(ValueError, match="item 0, level 1"):
        tokenizer.ids_to_codes([[1, 2, 17, 25]])  # the second id is of the first level
    with pytest.raises(ValueError, match=r"has 4 codes.*\(2, 2\)"):
        tokenizer.codes_to_ids([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="has 4 codes"):
        tokenizer.decode_history([33, 1, 9, 17])
    with pytest.raises(ValueError, match="different lengths"):
        tokenizer.codes_to_ids([[1, 2, 3, 4], [1, 2]])
    with pytest.raises(ValueError, match="whole numbers, got float64"):
        tokenizer.codes_to_ids([[1.5, 2, 3, 4]])
    with pytest.raises(ValueError, match="item 0, level 0"):
        tokenizer.decode_items([[SIZE, 0, 0, 0]])


def test_unknown_text_becomes_unk_or_nothing(tokenizer):
    assert tokenizer("<a_99>")["input_ids"] == [33, tokenizer.unk_token_id]
    assert tokenizer("some words <a_0>, more")["input_ids"] == [33, 1]
    assert tokenizer("")["input_ids"] == [33]


def test_padding_goes_to_the_left(tokenizer):
    batch = tokenizer(["<a_0>", "<a_0><b_0>"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[0, 33, 1], [33, 1, 9]]
    assert batch["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    padded = tokenizer.pad({"input_ids": [[33, 1, 9], [33]]}, padding_side="right")
    assert padded["input_ids"] == [[33, 1, 9], [33, 0, 0]]


@pytest.mark.parametrize(
    "text", ["<a_0><b_7>", "<pad><a_1><eos><mask>", "", "x <a_1> y", "<<a_1>>", "<a_99>", "<a _1>"]
)
def test_the_rust_tokenizer_gives_the_same_ids(tokenizer, text):
    rust = tokenizer.to_tokenizers()
    ids = tokenizer(text)["input_ids"]
    assert rust.encode(text).ids == ids
    assert rust.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
    assert rust.encode(text, "<d_2>").ids == tokenizer(text, "<d_2>")["input_ids"]


# ---- items ---------------------------------------------------------------------------------------------------------


def test_codes_of_items_do_not_depend_on_the_batch(tokenizer):
    vectors = vectors_of(20)
    for mean in (None, tokenizer.catalog_mean(vectors)):
        whole = tokenizer.encode_items(vectors, mean=mean)
        assert whole.dtype == np.int64
        one_by_one = [tokenizer.encode_items(vectors[row : row + 1], mean=mean)[0].tolist() for row in range(20)]
        assert one_by_one == whole.tolist()
        assert tokenizer.encode_items(vectors[::-1].copy(), mean=mean).tolist() == whole[::-1].tolist()


def test_texts_go_through_the_text_encoder(tokenizer):
    texts = ["red shoe", "blue hat", "red hat"]
    vectors = tokenizer.attached_text_encoder.encode(texts)
    assert tokenizer.encode_items(texts).tolist() == tokenizer.encode_items(vectors).tolist()
    np.testing.assert_array_equal(tokenizer.encode_texts(texts), vectors)


def test_decoded_items_are_what_the_quantizer_decodes(tokenizer):
    codes = tokenizer.encode_items(vectors_of(5))
    expected = tokenizer.quantizer.decode(torch.from_numpy(codes)).numpy()
    np.testing.assert_array_equal(tokenizer.decode_items(codes), expected)


def test_items_that_cannot_be_encoded_are_named(tokenizer):
    with pytest.raises(ValueError, match=r"\(items, 16\), got \(3, 5\)"):
        tokenizer.encode_items(np.zeros((3, 5), dtype=np.float32))
    vectors = vectors_of(3)
    vectors[1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        tokenizer.encode_items(vectors)
    with pytest.raises(TypeError, match="single string"):
        tokenizer.encode_items("red shoe")


def test_a_tokenizer_without_text_encoder_says_so():
    bare = RecBaseTokenizer(quantizer=make_tokenizer().quantizer)
    with pytest.raises(ValueError, match="names no text encoder"):
        bare.encode_items(["a text"])


def test_an_encoder_of_another_width_is_refused(tokenizer):
    class Narrow:
        def encode(self, texts):
            return np.ones((len(texts), 3), dtype=np.float32)

    other = copy.copy(tokenizer)
    other.attached_text_encoder = Narrow()
    with pytest.raises(ValueError, match="3 wide, the quantizer takes 16"):
        other.encode_items(["a text"])


@given(count=st.integers(1, 30), weight=st.floats(0, 50), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_catalog_mean_counts_the_corpus_mean_as_so_many_items(count, weight, seed):
    vectors, corpus_mean = vectors_of(count, seed), vectors_of(1, seed + 1)[0]
    expected = (vectors.sum(axis=0) + weight * corpus_mean) / (count + weight)
    np.testing.assert_allclose(shrunk_mean(vectors, corpus_mean, weight), expected, atol=1e-6)


def test_a_catalog_of_one_item_or_of_identical_items_is_not_centered_onto_nothing(tokenizer):
    for vectors in (vectors_of(1), np.repeat(vectors_of(1), 5, axis=0)):
        centered = center(vectors, tokenizer.catalog_mean(vectors))
        np.testing.assert_allclose(np.linalg.norm(centered, axis=1), 1.0, rtol=1e-5)
        codes = tokenizer.encode_items(vectors)
        assert (codes == codes[0]).all()


def test_an_item_on_the_mean_is_zero_and_has_codes(tokenizer):
    vectors = np.zeros((2, WIDTH), dtype=np.float32)
    assert center(vectors, np.zeros(WIDTH)).tolist() == vectors.tolist()
    assert tokenizer.encode_items(vectors).shape == (2, LEVELS)


# ---- copies and folders --------------------------------------------------------------------------------------------


def through_pickle(tokenizer):
    return pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  (as worker processes get it)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_copies_give_the_same_codes(duplicate):
    tokenizer = make_tokenizer()
    twin = duplicate(tokenizer)
    assert twin.fingerprint == tokenizer.fingerprint
    assert twin.encode_items(vectors_of(6)).tolist() == tokenizer.encode_items(vectors_of(6)).tolist()
    assert twin("<a_1><b_2>")["input_ids"] == tokenizer("<a_1><b_2>")["input_ids"]


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_loaded_tokenizer_is_the_saved_one(tokenizer, saved):
    loaded = RecBaseTokenizer.from_pretrained(saved)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.encode_items(vectors_of(9)).tolist() == tokenizer.encode_items(vectors_of(9)).tolist()
    for name in ("text_encoder_name", "text_encoder_revision", "item_template", "padding_side"):
        assert getattr(loaded, name) == getattr(tokenizer, name)


def test_saving_a_loaded_tokenizer_writes_the_same_bytes(saved, tmp_path):
    RecBaseTokenizer.from_pretrained(saved).save_pretrained(tmp_path)
    names = sorted(file.name for file in saved.iterdir())
    assert names == sorted(file.name for file in tmp_path.iterdir())
    assert [name for name in names if (saved / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_the_folder_holds_no_pickle_and_no_path(saved):
    for file in saved.iterdir():
        assert file.suffix in {".json", ".py", ".safetensors"}, file.name
        assert str(saved).encode() not in file.read_bytes(), file.name


def test_the_fingerprint_changes_with_all_that_codes_depend_on(tokenizer):
    quantizer, template = tokenizer.quantizer, tokenizer.item_template
    moved = copy.deepcopy(quantizer)
    moved.corpus_mean[0] += 0.1
    encoder = {"text_encoder": "an encoder", "item_template": template}
    variants = [
        RecBaseTokenizer(quantizer=quantizer, **encoder),
        RecBaseTokenizer(quantizer=moved, **encoder),
        RecBaseTokenizer(quantizer=quantizer, **{**encoder, "text_encoder": "another"}),
        RecBaseTokenizer(quantizer=quantizer, **encoder, text_encoder_revision="1a2b"),
        RecBaseTokenizer(quantizer=quantizer, **{**encoder, "item_template": {**template, "lead": "A film."}}),
        RecBaseTokenizer(quantizer=quantizer, **encoder, collisions="reassign"),
        RecBaseTokenizer(quantizer=quantizer, **encoder, collisions="digit"),
        *(RecBaseTokenizer(quantizer=small_quantizer(kind), **encoder) for kind in KINDS),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert RecBaseTokenizer(quantizer=quantizer, **encoder).fingerprint == variants[0].fingerprint


def flip_a_bit(folder):
    weights = bytearray((folder / "quantizer.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder / "quantizer.safetensors").write_bytes(weights)


def change_mean_shrinkage(folder):
    edit_json(folder / "quantizer_config.json", mean_shrinkage=7)


def change_template(folder):
    edit_json(folder / "tokenizer_config.json", item_template={"version": 1, "fields": ["title"], "lead": "A film."})


def change_encoder(folder):
    edit_json(folder / "tokenizer_config.json", text_encoder="another/encoder")


def change_collisions(folder):
    edit_json(folder / "tokenizer_config.json", collisions="reassign")


@pytest.mark.parametrize(
    "tamper", [flip_a_bit, change_mean_shrinkage, change_template, change_encoder, change_collisions]
)
def test_whatever_changes_the_codes_is_noticed(tokenizer, copied, tamper):
    tamper(copied)
    with pytest.raises(ValueError, match=f"saved with {tokenizer.fingerprint}: quantizer.safetensors, .* was changed"):
        RecBaseTokenizer.from_pretrained(copied)


@pytest.mark.parametrize("kept", [0, 30, -50])
def test_truncated_weights_are_named(copied, kept):
    weights = copied / "quantizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{weights} or .* is damaged"):
        RecBaseTokenizer.from_pretrained(copied)


def test_a_truncated_configuration_is_named(copied):
    (copied / "quantizer_config.json").write_text('{"codebook_size": ')
    with pytest.raises(ValueError, match=r"quantizer_config.json is damaged"):
        RecBaseTokenizer.from_pretrained(copied)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda state: state.pop("corpus_mean"), "corpus_mean"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra"),
        (lambda state: state.update(codebooks=torch.zeros(4, 9, 8)), "codebooks"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_named(copied, edit, complaint):
    state = load_file(copied / "quantizer.safetensors")
    edit(state)
    save_file(state, copied / "quantizer.safetensors")
    with pytest.raises(
        ValueError, match=rf"quantizer.safetensors does not fit .*quantizer_config.json(.|\n)*{complaint}"
    ):
        RecBaseTokenizer.from_pretrained(copied)


def test_an_older_format_asks_for_a_new_training(copied):
    edit_json(copied / "quantizer_config.json", format_version=1)
    with pytest.raises(ValueError, match=r"quantizer_config\.json was written by recbase-hf 0\.1\.0.*train"):
        RecBaseTokenizer.from_pretrained(copied)


def test_a_newer_format_asks_for_an_upgrade(copied):
    edit_json(copied / "quantizer_config.json", format_version=3, something_new=1)
    with pytest.raises(ValueError, match="newer recbase-hf; upgrade"):
        RecBaseTokenizer.from_pretrained(copied)


@pytest.mark.parametrize("name", ["quantizer.safetensors", "quantizer_config.json"])
def test_a_missing_sidecar_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(ValueError, match=r"needs quantizer.safetensors and quantizer_config.json"):
        RecBaseTokenizer.from_pretrained(copied)


def test_a_tokenizer_needs_a_quantizer():
    with pytest.raises(ValueError, match=r"needs quantizer\.safetensors"):
        RecBaseTokenizer()


def test_up_to_26_levels_have_letters():
    quantizer = small_quantizer("residual-kmeans", num_levels=26, codebook_size=2)
    assert RecBaseTokenizer(quantizer=quantizer)("<a_0><z_1>")["input_ids"] == [53, 1, 52]
    with pytest.raises(ValueError, match="'digit' would add a level to 26"):
        RecBaseTokenizer(quantizer=quantizer, collisions="digit")


# ---- kinds of quantizers -------------------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def saved_kind(request, tmp_path):
    """A tokenizer with a quantizer of each kind, and the folder that it was saved to."""
    quantizer = small_quantizer(request.param)
    quantizer.corpus_mean.copy_(torch.linspace(-0.1, 0.1, WIDTH))
    quantizer.fitted_cosines.copy_(torch.linspace(-1, 1, 101))
    tokenizer = RecBaseTokenizer(quantizer=quantizer, text_encoder="an encoder")
    tokenizer.save_pretrained(tmp_path / "saved")
    return tokenizer, tmp_path / "saved"


@pytest.mark.parametrize("load", [RecBaseTokenizer.from_pretrained, AutoTokenizer.from_pretrained])
def test_a_tokenizer_comes_back_with_its_kind_of_quantizer(saved_kind, load):
    tokenizer, folder = saved_kind
    loaded = load(folder)
    assert type(loaded) is RecBaseTokenizer
    assert type(loaded.quantizer) is type(tokenizer.quantizer)
    assert loaded.quantizer.config.settings() == tokenizer.quantizer.config.settings()
    assert not loaded.quantizer.training
    for name, tensor in tokenizer.quantizer.state_dict().items():
        assert torch.equal(loaded.quantizer.state_dict()[name], tensor), name
    codes = tokenizer.encode_items(vectors_of(30))
    assert len(np.unique(codes, axis=0)) > 5
    np.testing.assert_array_equal(loaded.encode_items(vectors_of(30)), codes)
    np.testing.assert_array_equal(loaded.decode_items(codes), tokenizer.decode_items(codes))
    assert loaded.fingerprint == tokenizer.fingerprint


def test_the_code_that_travels_with_a_tokenizer_has_every_kind(saved_kind, modules_cache):
    tokenizer, folder = saved_kind
    shipped = get_class_from_dynamic_module("tokenization_recbase.RecBaseTokenizer", folder).from_pretrained(folder)
    assert type(shipped.quantizer).__module__.startswith("transformers_modules.")
    assert shipped.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(shipped.encode_items(vectors_of(9)), tokenizer.encode_items(vectors_of(9)))


def test_the_settings_of_the_quantizer_say_its_kind(saved_kind):
    tokenizer, folder = saved_kind
    settings = json.loads((folder / "quantizer_config.json").read_text())
    assert settings.pop("format_version") == 2
    assert settings.pop("model_type") == tokenizer.quantizer.config.model_type
    assert settings == tokenizer.quantizer.config.settings()


def test_weights_that_are_not_finite_are_named_with_their_file(saved_kind):
    tokenizer, folder = saved_kind
    name = next(name for name, _ in tokenizer.quantizer.named_parameters())
    state = load_file(folder / "quantizer.safetensors")
    state[name][0] = float("inf")
    save_file(state, folder / "quantizer.safetensors")
    with pytest.raises(ValueError, match=rf"quantizer\.safetensors: NaN or infinity in \['{name}'\]"):
        RecBaseTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "vq"}, "unknown quantizer 'vq'; this version has clvae, fsq, product, residual_kmeans"),
        ({"num_levels": 0}, "num_levels is 0"),
    ],
)
def test_settings_that_make_no_quantizer_are_named_with_their_file(copied, changes, complaint):
    edit_json(copied / "quantizer_config.json", **changes)
    with pytest.raises(ValueError, match=rf"quantizer_config\.json: .*{complaint}"):
        RecBaseTokenizer.from_pretrained(copied)


def test_weights_of_another_kind_do_not_fit(saved_kind, copied):
    _, folder = saved_kind
    shutil.copy(folder / "quantizer_config.json", copied / "quantizer_config.json")
    with pytest.raises(ValueError, match=r"quantizer\.safetensors does not fit .*quantizer_config\.json"):
        RecBaseTokenizer.from_pretrained(copied)


# ---- collisions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("collisions", "levels"), [("keep", LEVELS), ("reassign", LEVELS), ("digit", LEVELS + 1)])
def test_the_policy_is_saved_and_decides_the_layout(tokenizer, tmp_path, collisions, levels):
    of_policy = RecBaseTokenizer(quantizer=tokenizer.quantizer, collisions=collisions)
    of_policy.save_pretrained(tmp_path)
    loaded = RecBaseTokenizer.from_pretrained(tmp_path)
    assert loaded.collisions == of_policy.collisions == collisions
    assert loaded.fingerprint == of_policy.fingerprint
    assert loaded.layout == of_policy.layout == TokenLayout(levels, SIZE)
    assert loaded.get_vocab() == of_policy.get_vocab()


def test_the_digit_is_a_level_of_its_own_that_decoding_leaves_out(tokenizer):
    with_digit = RecBaseTokenizer(quantizer=tokenizer.quantizer, collisions="digit")
    assert with_digit.vocab_size == tokenizer.vocab_size + SIZE
    assert with_digit("<a_0><e_7>")["input_ids"] == [5 * SIZE + 1, 1, 5 * SIZE]
    assert "<e_0>" not in tokenizer.get_vocab()
    codes = with_digit.encode_items(vectors_of(6))
    np.testing.assert_array_equal(codes, tokenizer.encode_items(vectors_of(6)))  # a catalog adds the digits
    for digit in (0, 5):
        ids = np.concatenate([codes, np.full((6, 1), digit)], axis=1)
        np.testing.assert_array_equal(with_digit.decode_items(ids), tokenizer.decode_items(codes))
        assert with_digit.decode_history(with_digit.encode_history(ids)).tolist() == ids.tolist()


@pytest.mark.parametrize("collisions", ["", "Keep", "drop", None])
def test_an_unknown_policy_is_refused(tokenizer, collisions):
    with pytest.raises(ValueError, match=f"collisions is {collisions!r}; it must be one of keep, reassign, digit"):
        RecBaseTokenizer(quantizer=tokenizer.quantizer, collisions=collisions)
