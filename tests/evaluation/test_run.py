"""An evaluation gives the same figures however its work is shared out and interrupted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from recbase_hf.data.histories import Histories
from recbase_hf.evaluation import run
from recbase_hf.evaluation.figures import measure_candidates
from recbase_hf.evaluation.protocols import leave_last_out, leave_one_out
from recbase_hf.evaluation.run import RankerEntry, evaluate_rankers
from recbase_hf.share import Share

NUM_ITEMS = 30
IDENTITY = {"data": "toys"}


class Affinity:
    """Scores that depend on history and item alone."""

    def __init__(self, shift: int) -> None:
        self.name, self.shift = f"affinity {shift}", shift
        self.calls = 0

    def scores(self, histories: Sequence[np.ndarray], candidates: Sequence[np.ndarray] | None) -> np.ndarray:
        self.calls += 1
        items = [np.arange(NUM_ITEMS)] * len(histories) if candidates is None else candidates
        parts = [
            np.array([(int(history.sum()) * 7 + self.shift * item) % 11 for item in own], dtype=np.float32)
            for history, own in zip(histories, items, strict=True)
        ]
        return np.stack(parts) if candidates is None else np.concatenate(parts)


def make_histories(users: int = 23) -> Histories:
    rng = np.random.default_rng(0)
    lists = [rng.permutation(NUM_ITEMS)[: rng.integers(3, 9)] for _ in range(users)]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in lists])])
    return Histories(np.array([f"u{user}" for user in range(users)], object), offsets, np.concatenate(lists))


TASKS = {
    "candidates": leave_last_out(make_histories(), NUM_ITEMS),
    "catalog": leave_one_out(make_histories(), NUM_ITEMS),
}


@pytest.fixture(params=sorted(TASKS))
def task(request, monkeypatch):
    monkeypatch.setattr(run, "USERS_A_PART", 5)
    return TASKS[request.param]


def entries(shifts: Sequence[int] = (1, 3, 5)) -> dict[str, RankerEntry]:
    ids = np.arange(NUM_ITEMS) // 2
    return {
        f"affinity {shift}": RankerEntry(lambda shift=shift: Affinity(shift), fitted=shift == 3, id_of_item=ids)
        for shift in shifts
    }


def figures_of(found) -> list[dict]:
    return [ranker.figures.to_json() for ranker in found]


def test_parts_give_what_one_call_gives(task, tmp_path, monkeypatch):
    parts = figures_of(evaluate_rankers(task, entries(), tmp_path / "parts", identity=IDENTITY))
    monkeypatch.setattr(run, "USERS_A_PART", 1000)
    assert parts == figures_of(evaluate_rankers(task, entries(), tmp_path / "one", identity=IDENTITY))
    assert [row["name"] for row in parts] == list(entries())
    assert any(name.startswith("semantic_id_") for name in parts[0]["metrics"])


def test_figures_are_those_of_the_scores(tmp_path):
    task = TASKS["candidates"]
    found = evaluate_rankers(task, entries((1,)), tmp_path / "work", identity=IDENTITY)
    scores = Affinity(1).scores(task.histories, task.candidates_of(0, len(task)))
    expected = measure_candidates("affinity 1", scores, task, id_of_item=np.arange(NUM_ITEMS) // 2)
    assert figures_of(found) == [expected.to_json()]


def test_two_processes_give_what_one_gives(task, tmp_path):
    alone = figures_of(evaluate_rankers(task, entries(), tmp_path / "one", identity=IDENTITY))
    barrier, found = threading.Barrier(2, timeout=30), {}

    def work(index: int) -> None:
        share = Share(index, 2, lambda: barrier.wait() and None)
        found[index] = figures_of(evaluate_rankers(task, entries(), tmp_path / "two", identity=IDENTITY, share=share))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: alone, 1: alone}


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_an_interrupted_evaluation_goes_on(task, tmp_path, monkeypatch, after):
    straight = figures_of(evaluate_rankers(task, entries(), tmp_path / "straight", identity=IDENTITY))
    calls = iter(range(1000))

    def interrupted(self, *arguments, _scores=Affinity.scores):
        if next(calls) == after:
            raise KeyboardInterrupt
        return _scores(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Affinity, "scores", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate_rankers(task, entries(), tmp_path / "work", identity=IDENTITY)
    done = len(list((tmp_path / "work").glob("*.safetensors")))
    assert done == after
    made = []
    monkeypatch.setattr(
        Affinity,
        "__init__",
        lambda self, shift: made.append(shift) or vars(self).update(name=f"affinity {shift}", shift=shift, calls=0),
    )
    assert figures_of(evaluate_rankers(task, entries(), tmp_path / "work", identity=IDENTITY)) == straight
    assert made == [1, 3, 5][after // 5 :]


def test_parts_of_another_evaluation_are_dropped(task, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(run, "_figures", None)
        with pytest.raises(TypeError):
            evaluate_rankers(task, entries(), tmp_path / "work", identity={"data": "books"})
    straight = figures_of(evaluate_rankers(task, entries((5, 3)), tmp_path / "straight", identity=IDENTITY))
    assert figures_of(evaluate_rankers(task, entries((5, 3)), tmp_path / "work", identity=IDENTITY)) == straight


def test_parts_that_nobody_vouches_for_are_dropped(task, tmp_path):
    straight = figures_of(evaluate_rankers(task, entries((5, 3)), tmp_path / "straight", identity=IDENTITY))
    evaluate_rankers(task, entries(), tmp_path / "work", identity=IDENTITY)
    (tmp_path / "work" / "identity.json").unlink()
    assert figures_of(evaluate_rankers(task, entries((5, 3)), tmp_path / "work", identity=IDENTITY)) == straight


def test_a_score_that_is_no_number_is_named(task, tmp_path):
    class Broken(Affinity):
        def scores(self, histories, candidates):
            scores = super().scores(histories, candidates)
            scores.reshape(-1)[7] = np.nan
            return scores

    with pytest.raises(ValueError, match=r"user 'u\d+' for item \d+ .* is NaN"):
        evaluate_rankers(task, {"broken": RankerEntry(lambda: Broken(1))}, tmp_path / "work", identity=IDENTITY)
