"""The sample that a quantizer is fitted on: bounded, weighted by domain, the same from every kind of source."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from recbase_hf.modeling.centering import center

from recbase_hf import DataError
from recbase_hf.quantizers import sample as sampling
from recbase_hf.quantizers.sample import draw_sample


def vectors(count, seed=0, width=5):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def draw(sources, **changes):
    options = {"max_items": 1000, "domain_balance": 1.0, "mean_shrinkage": 0.0, "seed": 0}
    return draw_sample(sources, **{**options, **changes})


def rows(sample):
    """How many items each domain has in a sample."""
    return np.diff(sample.offsets).tolist()


# ---- which items ---------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), max_items=st.integers(1, 150))
@settings(max_examples=60, deadline=None)
def test_small_domains_are_whole_and_large_ones_share_the_room_that_is_left(sizes, max_items):
    sample = draw({str(place): vectors(size) for place, size in enumerate(sizes)}, max_items=max_items)
    found = rows(sample)
    assert len(sample.vectors) == len(sample.weights) == sum(found)
    assert sum(found) == min(sum(sizes), max(max_items, len(sizes))), "every domain has at least one"
    cut = [count for count, size in zip(found, sizes, strict=True) if count < size]
    assert all(1 <= count <= size for count, size in zip(found, sizes, strict=True))
    assert not cut or min(cut) >= max(found) - 1


@given(counts=st.tuples(st.integers(1, 40), st.integers(1, 40)), max_items=st.integers(2, 60), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_sample_holds_different_rows_of_each_domain_centered_on_its_mean(counts, max_items, seed):
    domains = {name: vectors(count, seed=place) for place, (name, count) in enumerate(zip("ab", counts, strict=True))}
    sample = draw(domains, max_items=max_items, seed=seed)
    for place, domain in enumerate(domains.values()):
        unit = domain / np.linalg.norm(domain, axis=1, keepdims=True)
        whole = center(unit, unit.mean(axis=0))
        part = sample.vectors[sample.offsets[place] : sample.offsets[place + 1]]
        nearest = np.abs(part[:, None] - whole).max(axis=2)
        assert (nearest.min(axis=1) < 1e-4).all()
        assert len(domain) == 1 or len(set(nearest.argmin(axis=1))) == len(part)


def test_the_seed_decides_which():
    source = {"a": vectors(50)}
    first, same, other = (draw(source, max_items=10, seed=seed).vectors for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


# ---- means and weights ---------------------------------------------------------------------------------------------


def test_the_corpus_mean_is_of_all_items_however_few_are_drawn_and_counts_every_domain_alike():
    domains = {"large": 3.0 * vectors(500), "small": vectors(20, seed=1) + 1.0}
    units = [domain / np.linalg.norm(domain, axis=1, keepdims=True) for domain in domains.values()]
    sample = draw(domains, max_items=10)
    assert sample.corpus_mean.dtype == np.float32
    np.testing.assert_allclose(sample.corpus_mean, np.mean([unit.mean(axis=0) for unit in units], axis=0), atol=1e-6)


def test_a_domain_is_centered_on_its_mean_and_so_many_items_at_the_corpus_mean():
    domains = {"a": vectors(30), "b": vectors(10, seed=1) + 1.0}
    units = [domain / np.linalg.norm(domain, axis=1, keepdims=True) for domain in domains.values()]
    sample = draw(domains, mean_shrinkage=7.0)
    expected = [center(unit, (unit.sum(axis=0) + 7.0 * sample.corpus_mean) / (len(unit) + 7.0)) for unit in units]
    np.testing.assert_allclose(sample.vectors, np.concatenate(expected), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(sample.vectors, axis=1), 1.0, rtol=1e-5)


@given(sizes=st.tuples(st.integers(1, 90), st.integers(1, 90)), balance=st.floats(0, 1), max_items=st.integers(2, 200))
@settings(max_examples=60, deadline=None)
def test_a_domain_weighs_by_its_size_in_the_source_and_the_balance(sizes, balance, max_items):
    sample = draw(
        {str(place): vectors(size) for place, size in enumerate(sizes)}, domain_balance=balance, max_items=max_items
    )
    assert sample.weights.mean() == pytest.approx(1.0)
    totals = np.add.reduceat(sample.weights, sample.offsets[:-1])
    assert totals[0] / totals[1] == pytest.approx((sizes[0] / sizes[1]) ** (1.0 - balance))
    for place in range(2):  # within a domain all alike
        assert np.ptp(sample.weights[sample.offsets[place] : sample.offsets[place + 1]]) < 1e-12


# ---- sources -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["float64", "float16 memory map", "dataset", "dataset in numpy format"])
def source(request, tmp_path):
    half = vectors(40).astype(np.float16)
    if request.param == "float64":
        return half.astype(np.float64)
    if request.param == "float16 memory map":
        np.save(tmp_path / "vectors.npy", half)
        return np.load(tmp_path / "vectors.npy", mmap_mode="r")
    dataset = Dataset.from_dict({"item_id": [str(row) for row in range(40)], "vector": half.astype(np.float32)})
    return dataset.with_format("numpy") if request.param.endswith("numpy format") else dataset


def test_every_kind_of_source_gives_the_same_sample(source):
    expected = draw({"a": vectors(40).astype(np.float16).astype(np.float32), "b": vectors(9)}, max_items=30)
    found = draw({"a": source, "b": vectors(9)}, max_items=30)
    for name in ("vectors", "weights", "offsets", "corpus_mean"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def test_sources_are_read_in_batches_and_the_batches_do_not_matter(monkeypatch):
    class Watched:
        def __init__(self, array):
            self.array, self.longest = array, 0

        def __len__(self):
            return len(self.array)

        def __getitem__(self, rows):
            part = self.array[rows]
            self.longest = max(self.longest, len(part))
            return part

    watched = Watched(vectors(100))
    expected = draw({"a": vectors(100)}, max_items=30)
    monkeypatch.setattr(sampling, "BATCH", 7)
    found = draw({"a": watched}, max_items=30)
    assert watched.longest == 7
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-6)


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_sources_that_cannot_be_used_are_named(monkeypatch):
    monkeypatch.setattr(sampling, "BATCH", 8)
    broken = vectors(20)
    broken[13, 2] = np.inf
    for sources, complaint in [
        ({}, "nothing to fit a quantizer on: give at least one domain"),
        ({"books": vectors(3), "shoes": vectors(0)}, "shoes has no item; leave it out"),
        ({"books": vectors(3), "shoes": broken}, "shoes, vector 13: NaN or infinity"),
        ({"books": vectors(3), "shoes": vectors(3, width=4)}, r"different widths \(\{'books': 5, 'shoes': 4\}\)"),
        ({"books": vectors(3)[0]}, r"books: the vectors have shape \(5,\)"),
        ({"books": Dataset.from_dict({"id": [1], "text": ["a"]})}, "books has no column vector, only id, text; rename"),
    ]:
        with pytest.raises(DataError, match=complaint):
            draw(sources)
