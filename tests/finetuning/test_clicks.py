"""The CTR loss is of the scorer's joint scores, and its examples are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from finetuning.small_shop import ITEMS, load_shop, tune, write_shop
from recbase_hf import RecBaseScorer
from recbase_hf.data.histories import Histories
from recbase_hf.errors import DataError
from recbase_hf.finetuning.clicks import ClickHead, joint_scores, shown_batch
from recbase_hf.finetuning.examples import ClickExamples, ClickSource, Example
from recbase_hf.finetuning.impressions import read_shown
from recbase_hf.finetuning.settings import FineTuning
from tiny_world import make_world

CTR = {"objective": "ctr", "ctr_batch": 12}


def examples_of(*sources: ClickSource, **settings) -> ClickExamples:
    codes = np.zeros((max(source.items[1] for source in sources), 4), dtype=np.int64)
    return ClickExamples(sources, codes, FineTuning(**{**CTR, **settings}), max_history=3)


def source_of(users: int = 20, first: int = 0) -> ClickSource:
    """User u has the items u, u + 1, ..., of 30."""
    items = np.concatenate([(user + np.arange(2 + user % 5)) % 30 + first for user in range(users)])
    offsets = np.concatenate([[0], np.cumsum([2 + user % 5 for user in range(users)])])
    return ClickSource((first, first + 30), Histories(np.arange(users).astype(str).astype(object), offsets, items))


def write_impressions(folder: Path, rows: list[tuple[str, list[int], list[int], list[int]]]) -> Path:
    table = [
        {
            "user_id": user,
            "history": [f"item-{item}" for item in history],
            "candidates": [f"item-{item}" for item in candidates],
            "labels": labels,
        }
        for user, history, candidates, labels in rows
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "impressions.parquet")
    return folder


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_are_the_joint_scores_of_the_scorer(dtype):
    world = make_world(dtype=dtype)
    rng = np.random.default_rng(0)
    examples = [
        Example(rng.integers(0, 40, length), rng.integers(0, 40, count), np.zeros(count, dtype=np.int8))
        for length, count in ((5, 3), (0, 4), (11, 1))
    ]
    batch = shown_batch(examples, world.catalog.codes, world.tokenizer.layout)
    with torch.no_grad():
        scores = joint_scores(world.model, batch, world.tokenizer.layout)
    expected = RecBaseScorer(world.model, world.tokenizer).score_rows(
        [example.history for example in examples],
        [example.candidates for example in examples],
        catalog=world.catalog,
        method="joint",
    )
    for row, wanted in enumerate(expected):
        found = scores[row, : len(wanted)].numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-10 if dtype == torch.float64 else 1e-5)
    assert batch.present.sum(dim=1).tolist() == [3, 4, 1]
    assert batch.sizes.tolist() == [8, (1 + 20) + 1 + (1 + 44) + 8 * 3, 3]


def test_the_gradient_of_a_score_reaches_history_and_candidate():
    world = make_world()
    example = Example(np.array([3]), np.array([7]), np.array([1], dtype=np.int8))
    batch = shown_batch([example], world.catalog.codes, world.tokenizer.layout)
    embeddings = world.model.get_input_embeddings().weight
    states = []
    world.model.model.embed_tokens.register_forward_hook(lambda _m, _i, out: states.append(out) or out.retain_grad())
    joint_scores(world.model, batch, world.tokenizer.layout).sum().backward()
    assert (states[0].grad.abs().sum(dim=-1) > 0).all(), "<bos>, the history and the candidate's first codes"
    assert embeddings.grad is not None


def test_a_head_starts_as_the_logistic_regression_of_clicks():
    rng = np.random.default_rng(0)
    scores = rng.normal(-20, 5, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-(0.4 * scores + 7)))).astype(float)  # a slope of 2 a deviation
    facts = ClickHead.fitted(scores, labels).facts()
    assert facts["scale"] == pytest.approx(0.4, rel=0.1)
    assert facts["bias"] == pytest.approx(7, rel=0.1)


def test_a_base_that_ranks_upside_down_does_not_turn_clicks_around():
    scores = np.arange(100.0)
    head = ClickHead.fitted(scores, (scores < 50).astype(float))
    with torch.no_grad():
        logits = head(torch.from_numpy(scores))
    assert (logits.diff() > 0).all()
    assert head.facts()["scale"] > 0


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_head_stays_finite_where_all_clicks_are_alike(label):
    head = ClickHead.fitted(np.full(8, -3.0), np.full(8, label))
    assert np.isfinite(list(head.facts().values())).all()


# ---- examples --------------------------------------------------------------------------------------------------------


def test_an_example_is_an_event_behind_its_history_and_items_that_the_user_never_had():
    source = source_of()
    seen = 0
    for examples in examples_of(source).steps(0, 20):
        for example in examples:
            assert example.labels.tolist() == [1, 0, 0, 0, 0]
            assert len(set(example.candidates.tolist())) == 5
            clicked = example.candidates[0]
            owners = [
                user
                for user in range(len(source.histories))
                if clicked in (events := source.histories[user].tolist())
                and events[: events.index(clicked)][-3:] == example.history.tolist()
                and not set(events) & set(example.candidates[1:].tolist())
            ]
            assert owners
            assert 1 <= len(example.history) <= 3
            seen += 1
    assert seen == 20 * 12


def test_in_batch_negatives_are_what_others_have_clicked():
    for examples in examples_of(source_of(), sampled_negatives=0, in_batch_negatives=2).steps(0, 5):
        clicked = {int(example.candidates[0]) for example in examples}
        assert np.mean([item in clicked for e in examples for item in e.candidates[1:].tolist()]) > 0.95


def test_negatives_are_of_the_same_data_set():
    sources = source_of(), source_of(first=30)
    for examples in examples_of(*sources).steps(0, 5):
        for example in examples:
            assert len(set((example.candidates // 30).tolist())) == 1


def test_a_step_follows_from_its_number():
    source = source_of()
    straight = [*examples_of(source).steps(0, 6)]
    for left, right in zip(straight[4:], examples_of(source).steps(4, 6), strict=True):
        for one, other in zip(left, right, strict=True):
            assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
    other_seed = next(examples_of(source, seed=1).steps(0, 1))
    assert any(not np.array_equal(a.candidates, b.candidates) for a, b in zip(straight[0], other_seed, strict=True))


def test_a_tiny_catalog_gives_fewer_negatives():
    histories = Histories(np.array(["a", "b"], dtype=object), np.array([0, 2, 4]), np.array([0, 1, 1, 2]))
    for examples in examples_of(ClickSource((0, 3), histories)).steps(0, 2):
        assert {len(example.candidates) for example in examples} == {2}


# ---- impressions -----------------------------------------------------------------------------------------------------


def test_impressions_give_what_was_shown(tmp_path):
    rows = [
        ("ann", [1, 2], [3, 4, 5], [0, 1, 0]),
        ("ann", [1], [3, 4], [0, 0]),  # nothing clicked
        ("bob", [1, 9], [2, 9, 4], [1, 1, 0]),  # what is held out is no candidate and no history
        ("eve", [1], [2, 3], [1, 0]),  # not learned from
    ]
    folder = write_impressions(tmp_path, rows)
    ids = [f"item-{item}" for item in range(10)]
    shown = read_shown(folder, ids, {"ann": np.array([7]), "bob": np.array([9])})
    assert [part.tolist() for part in shown.histories] == [[1, 2], [1]]
    assert [part.tolist() for part in shown.candidates] == [[3, 4, 5], [2, 4]]
    assert [part.tolist() for part in shown.labels] == [[0, 1, 0], [1, 0]]


def test_long_impressions_are_cut_to_some_clicked_and_some_not(tmp_path):
    labels = [0] * 29 + [1]
    folder = write_impressions(tmp_path, [("0", [1], list(range(30)), labels)])
    shown = read_shown(folder, [f"item-{item}" for item in range(30)], {"0": np.array([], dtype=int)})
    source = ClickSource((0, 30), source_of().histories, shown)
    for examples in examples_of(source, shown=4).steps(0, 3):
        for example in examples:
            assert (len(example.candidates), example.labels.sum()) == (4, 1)


def test_a_folder_without_impressions_has_none(tmp_path):
    assert read_shown(tmp_path, ["a"], {}) is None


def test_impressions_that_do_not_fit_are_refused(tmp_path):
    folder = write_impressions(tmp_path, [("ann", [1], [2, 3], [1])])
    with pytest.raises(DataError, match=r"impressions.parquet, row 1: 2 candidates, but 1 labels"):
        read_shown(folder, ["item-2", "item-3"], {"ann": np.array([0])})
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "impressions.parquet")
    with pytest.raises(DataError, match="no column 'history'"):
        read_shown(folder, [], {})


def test_a_shop_with_impressions_learns_from_them(base, tmp_path, new_accelerator):
    shop = write_shop(tmp_path / "shop")
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        start = int(rng.integers(ITEMS))
        candidates = [(start + 3) % ITEMS, *rng.integers(0, ITEMS, 3).tolist()]
        rows.append((f"user-{user}", [start], candidates, [1, 0, 0, 0]))
    write_impressions(shop, rows)
    data = load_shop(shop, FineTuning(**CTR))
    (source,) = data.examples.sources
    assert source.shown is not None
    assert 0 < len(source) <= data.users["shop"], "only of users that are learned from"
    tuned = tune(base, shop, tmp_path / "run", new_accelerator(), epochs=20, train_rows=("codes",), **CTR)
    losses = [entry["train_ctr_loss"] for entry in tuned.log if "train_ctr_loss" in entry]
    assert losses[-1] < losses[0] - 0.05
