"""The measures keep the laws of what they measure, for any codes."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recbase_hf.catalog.collisions import collision_report
from recbase_hf.catalog.trie import build_trie
from recbase_hf.doctor import groups, measures
from recbase_hf.errors import DataError

CODEBOOK = 6
codes_of_items = arrays.arrays(
    np.int64,
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    elements=st.integers(0, CODEBOOK - 1),
)
few = settings(max_examples=40, deadline=None)


def entropy_of(rows) -> float:
    _, counts = np.unique(rows, axis=0, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


# ---- levels --------------------------------------------------------------------------------------------------------


@few
@given(codes_of_items)
def test_conditional_bits_add_up_to_the_joint_entropy(codes):
    bits = measures.conditional_bits(codes)
    assert (bits >= 0).all()
    assert bits.sum() == pytest.approx(entropy_of(codes), abs=1e-9)
    assert bits[0] == pytest.approx(entropy_of(codes[:, :1]), abs=1e-9)


@few
@given(codes_of_items)
def test_perplexity_lies_between_one_and_the_used_codes(codes):
    for level, use in enumerate(measures.level_use(codes, CODEBOOK)):
        assert use.used == len(set(codes[:, level].tolist()))
        assert 1 - 1e-9 <= use.perplexity <= use.used + 1e-9
        assert 1 / use.used - 1e-9 <= use.top_share <= 1
        assert use.perplexity_share == pytest.approx(use.perplexity / CODEBOOK)


@few
@given(codes_of_items, st.randoms(use_true_random=False))
def test_the_order_of_the_items_does_not_count(codes, random):
    order = list(range(len(codes)))
    random.shuffle(order)
    shuffled = codes[order]
    assert measures.collisions(shuffled) == measures.collisions(codes)
    assert measures.bucket_sizes(shuffled) == measures.bucket_sizes(codes)
    assert measures.level_use(shuffled, CODEBOOK) == measures.level_use(codes, CODEBOOK)
    np.testing.assert_allclose(measures.conditional_bits(shuffled), measures.conditional_bits(codes), atol=1e-12)


def test_bunching_in_the_lowest_codes_is_seen():
    rng = np.random.default_rng(0)
    even = rng.integers(0, 256, size=4000)
    bunched = np.where(rng.random(4000) < 0.6, rng.integers(0, 8, size=4000), even)
    plain, marked = measures.level_use(np.stack([even, bunched], axis=1), 256)
    assert plain.first_codes_share == pytest.approx(plain.first_codes_expected, abs=0.01)
    assert marked.first_codes_share > 0.55


def test_a_counting_last_level_is_told_from_one_that_describes():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 10, size=60)
    count = np.array([(first[:row] == code).sum() for row, code in enumerate(first)])
    assert measures.last_level_counts(np.stack([first, count], axis=1))
    assert not measures.last_level_counts(np.stack([first, rng.integers(0, 50, size=60)], axis=1))
    collapsed = np.stack([first, np.zeros(60, dtype=int)], axis=1)
    assert not measures.last_level_counts(collapsed, [f"text {row}" for row in range(60)])
    assert not measures.last_level_counts(first[:, None])


# ---- collisions ----------------------------------------------------------------------------------------------------


@few
@given(codes_of_items)
def test_collisions_and_bucket_sizes_agree(codes):
    found, sizes = measures.collisions(codes), measures.bucket_sizes(codes)
    assert sum(size.num_items for size in sizes) == found.num_items == len(codes)
    assert sum(size.num_ids for size in sizes) == found.num_ids
    assert sizes[0].num_items == found.num_items - found.num_sharing
    assert found.duplicate_rate == pytest.approx(1 - len(np.unique(codes, axis=0)) / len(codes))


@few
@given(codes_of_items)
def test_of_different_texts_all_sharing_items_collide_and_of_one_text_none(codes):
    different = [f"text {row}" for row in range(len(codes))]
    assert measures.text_collisions(codes, different).num_colliding == measures.collisions(codes).num_sharing
    assert measures.text_collisions(codes, ["text"] * len(codes)).share == 0


@few
@given(codes_of_items, st.lists(st.sampled_from("abc"), min_size=30, max_size=30))
def test_colliding_texts_are_those_that_share_an_id_with_another(codes, texts):
    texts = texts[: len(codes)]
    ids = list(map(tuple, codes.tolist()))
    pairs = set(zip(ids, texts, strict=True))
    colliding = {text for code, text in pairs if any(code == other and text != name for other, name in pairs)}
    assert measures.text_collisions(codes, texts).num_colliding == len(colliding)
    assert len(measures.distinct_items(codes, texts)) == len(pairs)
    report = collision_report(texts, texts, build_trie(codes, CODEBOOK))
    assert report.num_colliding_texts == len(colliding)


def test_a_text_with_two_ids_counts_once():
    codes = np.array([[0], [1], [0], [1]])
    found = measures.text_collisions(codes, ["go", "go", "chess", "poker"])
    assert (found.num_texts, found.num_colliding) == (3, 3)


def test_buckets_are_ordered_by_items_or_by_texts():
    codes = np.array([[7]] * 4 + [[3]] * 3 + [[5]])
    texts = ["go"] * 4 + ["chess", "poker", "chess"] + ["bridge"]
    by_items = measures.largest_buckets(codes, texts)
    assert [(group.rows.tolist(), group.num_texts) for group in by_items] == [([0, 1, 2, 3], 1), ([4, 5, 6], 2)]
    assert by_items[1].example_rows.tolist() == [4, 5]
    assert [group.rows.tolist() for group in measures.largest_buckets(codes, texts, by_texts=True)] == [[4, 5, 6]]
    assert measures.largest_buckets(codes)[0].num_texts is None
    assert len(measures.largest_buckets(codes, count=1)) == 1


def test_rows_in_one_stretch_are_noticed():
    stretch, scattered = measures.largest_buckets(np.array([[1], [2], [2], [2], [1]]))
    assert stretch.is_one_stretch
    assert not scattered.is_one_stretch


def test_numbers_of_any_size_keep_buckets_apart():
    codes = np.random.default_rng(0).integers(0, 10**6, size=(200, 12))
    assert measures.collisions(codes).num_ids == 200


# ---- texts and vectors ---------------------------------------------------------------------------------------------


def test_repeated_texts_are_grouped():
    texts = ["go", "chess", "go", "poker", "chess", "go", " "]
    assert measures.duplicate_texts(texts) == measures.DuplicateTexts(7, 4, 5, 5 / 7)
    assert [group.rows.tolist() for group in measures.largest_text_groups(texts)] == [[0, 2, 5], [1, 4]]
    assert measures.empty_texts(texts).tolist() == [6]


def test_one_vector_for_different_texts_is_noticed():
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    vectors[4] = vectors[1]
    texts = [f"text {row}" for row in range(6)]
    assert measures.repeated_vectors(vectors, texts).num_colliding == 2
    texts[4] = texts[1]
    assert measures.repeated_vectors(vectors, texts).num_colliding == 0


few_numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0**-24])


@few
@given(
    st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
        lambda kind: arrays.arrays(kind, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=few_numbers)
    )
)
def test_equal_rows_and_only_they_have_equal_numbers(matrix):
    number = groups.numbered_rows(matrix)
    equal = (matrix[:, None] == matrix[None]).all(axis=2)
    np.testing.assert_array_equal(number[:, None] == number[None], equal)


def test_different_rows_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(groups, "_hashes", lambda rows: (rows[:, 0] > 0).astype(np.uint64))
    monkeypatch.setattr(groups, "BATCH", 3)
    matrix = np.array([[1.0], [2.0], [1.0], [-1.0], [2.0], [-2.0], [3.0], [1.0]])
    number = groups.numbered_rows(matrix)
    np.testing.assert_array_equal(number[:, None] == number[None], matrix == matrix.T)


def test_a_large_matrix_is_numbered_without_a_copy_of_it():
    matrix = np.random.default_rng(0).integers(0, 2, size=(100_000, 64)).astype(np.float32)
    matrix[50_000:] = matrix[:50_000]
    tracemalloc.start()
    number = groups.numbered_rows(matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < matrix.nbytes
    np.testing.assert_array_equal(number[50_000:], number[:50_000])
    assert len(np.unique(number)) == 50_000


def test_reconstruction_cosines_ignore_length_and_survive_zeros():
    vectors = np.array([[3.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    assert measures.reconstruction_cosines(vectors, 2 * vectors).tolist() == [1.0, 1.0, 0.0]
    assert measures.reconstruction_cosines(vectors, -vectors).tolist() == [-1.0, -1.0, 0.0]
    with pytest.raises(DataError, match="must be equal"):
        measures.reconstruction_cosines(vectors, vectors[:, :1])


def test_drift_of_the_fitted_items_is_one_percent():
    cosines = np.random.default_rng(0).uniform(0.5, 0.9, size=20_000)
    fitted = np.percentile(cosines, np.arange(101))
    assert measures.drift(cosines, fitted) == pytest.approx(0.01, abs=0.001)
    assert measures.drift(cosines - 0.5, fitted) == 1.0


# ---- several data sets -----------------------------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), min_size=2, max_size=50))
def test_information_lies_between_nothing_and_the_entropy_of_either(pairs):
    codes, names = np.array([code for code, _ in pairs]), np.array([name for _, name in pairs])
    if len(set(names)) < 2:
        with pytest.raises(DataError, match="one data set"):
            measures.level_one_information(codes, names)
        return
    found = measures.level_one_information(codes, names)
    assert found.dataset_bits == pytest.approx(entropy_of(names[:, None]))
    assert -1e-9 <= found.bits <= min(found.dataset_bits, entropy_of(codes[:, None])) + 1e-9
    assert 0 <= found.share_above_chance <= 1 + 1e-9
    renamed = measures.level_one_information(5 - codes, np.char.add("set ", names))
    assert renamed.bits == pytest.approx(found.bits, abs=1e-9)


def test_a_label_is_told_from_chance():
    names = np.repeat([0, 1, 2], 400)
    label = measures.level_one_information(names * 7 + 1, names)
    assert label.share == pytest.approx(1.0)
    assert label.bits == pytest.approx(math.log2(3))
    assert label.chance_share < 0.01
    blind = measures.level_one_information(np.random.default_rng(1).integers(0, 20, size=1200), names)
    assert blind.share < 0.05
    assert blind.share_above_chance < 0.02


def test_codes_of_their_own_for_every_item_are_not_taken_for_a_label():
    found = measures.level_one_information(np.arange(40), np.repeat([0, 1], 20))
    assert found.share == pytest.approx(1.0)
    assert found.share_above_chance == 0.0


def test_overlap_is_symmetric_and_one_with_itself():
    rng = np.random.default_rng(0)
    overlap = measures.level_one_overlap(rng.integers(0, 5, size=90), np.repeat([0, 1, 2], 30))
    np.testing.assert_allclose(overlap, overlap.T)
    np.testing.assert_allclose(np.diag(overlap), 1.0)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-12)).all()


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, 4), dtype=int), "at least one item"),
        (np.zeros(4, dtype=int), "(items, levels)"),
        (np.zeros((2, 2)), "float64"),
        (np.array([[0, 1], [0, -1]]), "row 2, level 2: code -1 is negative"),
    ],
)
def test_codes_that_are_none_are_named(codes, message):
    with pytest.raises(DataError) as error:
        measures.collisions(codes)
    assert message in str(error.value)


def test_a_code_beyond_the_codebook_is_named():
    with pytest.raises(DataError, match="row 1, level 2: code 9 is out of range for a codebook of 8"):
        measures.level_use(np.array([[0, 9]]), 8)
