"""Under `reassign` and `digit` different texts have different semantic IDs, and as few codes as possible change."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recbase_hf.modeling.centering import center
from recbase_hf.modeling.quantizers import QUANTIZERS, new_quantizer, quantizer_config

from recbase_hf import DataError, ItemCatalog, RecBaseTokenizer
from recbase_hf.catalog import collisions
from recbase_hf.catalog.collisions import Taken, assign_codes, collision_report
from recbase_hf.catalog.trie import build_trie
from tiny_world import WIDTH

SIZES = {"num_levels": 2, "codebook_size": 4}
MEAN = np.zeros(WIDTH, dtype=np.float32)
# A text number stands for one of three kinds of item and a small deviation, so that semantic IDs collide.
tables = st.lists(st.integers(0, 11), min_size=1, max_size=14)
quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def texts_of(numbers):
    return [f"text {number}" for number in numbers]


def vectors_of(numbers):
    kinds = np.random.default_rng(0).normal(size=(3, WIDTH))
    rows = [kinds[number % 3] + 0.05 * np.random.default_rng(number).normal(size=WIDTH) for number in numbers]
    vectors = np.array(rows, dtype=np.float32).reshape(-1, WIDTH)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assign(tokenizer, numbers, taken=None):
    return assign_codes(tokenizer, vectors_of(numbers), texts_of(numbers), mean=MEAN, taken=taken)


def natural_codes(tokenizer, numbers):
    """What the quantizer says."""
    codes = tokenizer.quantizer.encode(torch.from_numpy(center(vectors_of(numbers), MEAN))).numpy()
    return codes if tokenizer.collisions != "digit" else np.pad(codes, ((0, 0), (0, 1)))


def fits(tokenizer, numbers):
    """Whether no more texts share all codes but the last than the last level has codes."""
    rows = zip(natural_codes(tokenizer, numbers).tolist(), numbers, strict=True)
    places = {(tuple(codes[:-1]), number) for codes, number in rows}
    prefixes = [prefix for prefix, _ in places]
    return max(map(prefixes.count, prefixes)) <= tokenizer.layout.codebook_size


def reassigned_plainly(tokenizer, numbers):
    """The policy word by word: under a prefix nearest first, who keeps an ID or takes what is free."""
    size, codes = tokenizer.layout.codebook_size, natural_codes(tokenizer, numbers)
    if tokenizer.collisions == "digit":
        distances = np.tile(np.arange(size), (len(numbers), 1))
    else:
        vectors = torch.from_numpy(center(vectors_of(numbers), MEAN))
        distances = tokenizer.quantizer.last_level_distances(vectors, torch.from_numpy(codes)).numpy()
    found = {}
    for prefix in {tuple(row[:-1]) for row in codes}:
        rows = {f"text {numbers[row]}": row for row in np.flatnonzero((codes[:, :-1] == prefix).all(axis=1))}
        wanted = {text: codes[row, -1] for text, row in rows.items()}
        order = sorted(rows, key=lambda text: (distances[rows[text], wanted[text]], wanted[text], text))
        keepers = {code: next(text for text in order if wanted[text] == code) for code in wanted.values()}
        free = [code for code in range(size) if code not in keepers]
        for text in order:
            found[text] = wanted[text]
            if keepers[wanted[text]] != text:
                found[text] = min(free, key=lambda code: distances[rows[text], code])
                free.remove(found[text])
    return np.column_stack([codes[:, :-1], [found[text] for text in texts_of(numbers)]])


@pytest.mark.parametrize("policy", ["reassign", "digit"])
@given(numbers=tables)
@quick
def test_texts_and_semantic_ids_correspond_one_to_one(tokenizer_of, policy, numbers):
    tokenizer = tokenizer_of(policy, **SIZES)
    if not fits(tokenizer, numbers):
        with pytest.raises(DataError, match="different texts share the codes"):
            assign(tokenizer, numbers)
        return
    codes = assign(tokenizer, numbers)
    assert codes.dtype == np.int64
    assert len(np.unique(codes, axis=0)) == len(set(numbers))
    assert len({(number, *row) for number, row in zip(numbers, codes.tolist(), strict=True)}) == len(set(numbers))
    np.testing.assert_array_equal(codes[:, :-1], natural_codes(tokenizer, numbers)[:, :-1])
    np.testing.assert_array_equal(codes, reassigned_plainly(tokenizer, numbers))


@pytest.mark.parametrize("policy", ["reassign", "digit"])
@given(numbers=tables, data=st.data())
@quick
def test_the_order_of_the_rows_changes_nothing(tokenizer_of, policy, numbers, data):
    tokenizer = tokenizer_of(policy, **SIZES)
    order = np.array(data.draw(st.permutations(range(len(numbers)))))
    if fits(tokenizer, numbers):
        codes = assign(tokenizer, numbers)
        np.testing.assert_array_equal(assign(tokenizer, [numbers[row] for row in order]), codes[order])


@pytest.mark.parametrize("policy", ["reassign", "digit"])
@given(old=tables, new=tables)
@quick
def test_what_is_taken_stays_and_new_texts_go_around_it(tokenizer_of, policy, old, new):
    tokenizer = tokenizer_of(policy, **SIZES)
    if not fits(tokenizer, [*old, *new]):
        return
    before = assign(tokenizer, old)
    codes = np.concatenate([before, assign(tokenizer, new, Taken(before, texts_of(old)))])
    numbers = [*old, *new]
    assert len(np.unique(codes, axis=0)) == len(set(numbers))
    assert len({(number, *row) for number, row in zip(numbers, codes.tolist(), strict=True)}) == len(set(numbers))
    np.testing.assert_array_equal(codes[:, :-1], natural_codes(tokenizer, numbers)[:, :-1])


def test_a_text_comes_back_to_the_semantic_id_that_its_like_holds(tokenizer_of):
    tokenizer = tokenizer_of("reassign", **SIZES)
    numbers = [0, 3, 6]
    codes = assign(tokenizer, numbers)
    natural = natural_codes(tokenizer, numbers)
    moved = int(np.flatnonzero((codes != natural).any(axis=1))[0])
    # Its own ID is free now, but a text has one ID in a catalog.
    again = assign(tokenizer, [numbers[moved]], Taken(codes[[moved]], [f"text {numbers[moved]}"]))
    np.testing.assert_array_equal(again[0], codes[moved])


@given(numbers=tables)
@quick
def test_keep_is_what_the_quantizer_says(tokenizer_of, numbers):
    tokenizer = tokenizer_of("keep", **SIZES)
    np.testing.assert_array_equal(assign(tokenizer, numbers), natural_codes(tokenizer, numbers))


def test_the_digit_counts_from_0_within_each_bucket(tokenizer_of):
    tokenizer = tokenizer_of("digit", **SIZES)
    vectors = np.tile(vectors_of([0]), (5, 1))
    codes = assign_codes(tokenizer, vectors, ["b", "a", "c", "a", "d"], mean=MEAN)
    assert codes.shape == (5, 3)
    assert codes[:, -1].tolist() == [1, 0, 2, 0, 3]  # by text, so that the order of the rows does not matter


def test_too_many_texts_for_a_prefix_are_refused_with_counts_and_fix(tokenizer_of):
    for policy in ("reassign", "digit"):
        tokenizer = tokenizer_of(policy, **SIZES)
        rows = [{"item_id": number, "title": f"hat {number}"} for number in range(5)]
        vectors = np.tile(vectors_of([0]), (5, 1))
        catalog = ItemCatalog.from_items(rows[:4], tokenizer=tokenizer, vectors=vectors[:4])
        assert catalog.trie.bucket_sizes.tolist() == [1, 1, 1, 1]
        prefix = re.escape(str(catalog.codes[0, :-1].tolist()))
        with pytest.raises(DataError, match=f"5 different texts share the codes {prefix}, after which only 4 differ; "):
            ItemCatalog.from_items(rows, tokenizer=tokenizer, vectors=vectors)
        with pytest.raises(DataError, match=r"5 different texts share .* \(4 have been in the catalog before\)"):
            catalog.add_items(rows[4:], tokenizer=tokenizer, vectors=vectors[4:])


def test_among_many_items_no_text_is_taken_for_another():
    """Prefix times items is beyond 32 bits here; so numbered, the new text would have the number of a taken one."""
    count, size = 70_000, 300
    step = 2**32 // count + 1
    shift = step * count - 2**32
    prefixes = (np.arange(count - 1) + 20_000) % (count - 1)  # of taken item i, which has the text i
    taken = np.stack([prefixes // size, prefixes % size, np.full(count - 1, 5)], axis=1)
    mistaken = count - 1 - shift
    prefix = prefixes[mistaken] - step
    taken[mistaken, 2] = 7
    new = np.array([[prefix // size, prefix % size, 9]])
    distances = partial(collisions._distances_of_counter, size)
    codes = collisions._separate(new, [f"text {count - 1}"], distances, size, Taken(taken, texts_of(range(count - 1))))
    assert codes.tolist() == new.tolist()


def test_the_report_counts_a_text_under_two_semantic_ids_once():
    trie = build_trie(np.array([[0], [0], [1], [1], [2]]), 3)
    report = collision_report(["a", "b", "c", "d", "e"], ["go", "chess", "go", "poker", "bridge"], trie)
    assert (report.num_colliding_items, report.num_colliding_texts, report.num_identical_items) == (4, 3, 0)


def test_one_level_of_codes_is_one_prefix(tokenizer_of):
    tokenizer = tokenizer_of("reassign", num_levels=1, codebook_size=8)
    codes = assign(tokenizer, [0, 3, 6, 1, 4, 0])
    assert len(set(codes[:, 0].tolist())) == 5


def test_identical_items_of_different_texts_are_spread_over_the_nearest_codes(tokenizer_of):
    tokenizer = tokenizer_of("reassign", num_levels=2, codebook_size=8)
    for vector in (vectors_of([0]), np.zeros((1, WIDTH), dtype=np.float32)):
        vectors = np.tile(vector, (6, 1))
        codes = assign_codes(tokenizer, vectors, texts_of(range(6)), mean=MEAN)
        distances = tokenizer.quantizer.last_level_distances(torch.from_numpy(vectors[:1]), torch.from_numpy(codes[:1]))
        assert codes[:, -1].tolist() == distances[0].argsort()[:6].tolist()


def test_many_chunks_give_what_one_gives(tokenizer_of, monkeypatch):
    tokenizer = tokenizer_of("reassign", num_levels=2, codebook_size=8)
    numbers = list(range(12))
    codes = assign(tokenizer, numbers)
    monkeypatch.setattr(collisions, "CHUNK", 2)
    np.testing.assert_array_equal(assign(tokenizer, numbers), codes)


@pytest.mark.parametrize("kind", sorted(QUANTIZERS))
def test_every_kind_of_quantizer_can_reassign(kind):
    torch.manual_seed(0)
    codes_a_level = {"grid": (8, 8)} if kind == "fsq" else {"codebook_size": 64}
    config = quantizer_config(kind, input_dim=WIDTH, num_levels=2, mean_shrinkage=1, **codes_a_level)
    tokenizer = RecBaseTokenizer(quantizer=new_quantizer(config), collisions="reassign")
    codes = assign(tokenizer, range(40))
    assert len(np.unique(codes, axis=0)) == 40
    np.testing.assert_array_equal(codes[:, :-1], natural_codes(tokenizer, range(40))[:, :-1])
