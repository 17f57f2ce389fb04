"""The card of a run says what the run's own files say, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from recbase_hf.modeling.token_layout import TokenLayout

from recbase_hf.training.card import overfitting_remark, training_card
from recbase_hf.training.settings import Pretraining
from tiny_world import make_model, make_tokenizer

DOMAIN = {"items": 30, "items_without_vector": 2, "users": 60}
SHARDS = {"domains": {"books": DOMAIN, "games": DOMAIN}, "settings": {"data": {"books": "h1", "games": "h2"}}}


def entry(step: int, train: float, validation: float | None = None, **more: float) -> dict:
    found = {"step": step, "train_loss": train, "train_loss_level_1": train - 1, "train_loss/books": train + 1}
    found["trained_targets"] = 100 * step
    if validation is not None:
        found |= {"validation_loss": validation, "validation_loss_level_1": validation - 1}
        found |= {"validation_loss/games": validation + 1}
    return {**found, **more}


LOG = [
    entry(100, 4.5, 4.25),
    entry(200, 3.5, 3.75, **{"probe_gauc_joint/toys": 0.625, "probe_gauc_catalog/toys": 0.5}),
    entry(300, 2.5, 4.125),
]


def card_of(log: list[dict], training: Pretraining | None = None, tokenizer_data: dict | None = None, **more) -> str:
    options = {**asdict(training or Pretraining()), "row_length": 802, "tokenizer_data": tokenizer_data or {}}
    model = make_model(TokenLayout(num_levels=4, codebook_size=8))
    return training_card(model, make_tokenizer(), shards=SHARDS, options=options, log=log, targets=12_345, **more)


def test_losses_are_told_by_level_and_data_set_at_the_step_of_the_weights():
    card = card_of(LOG)
    assert "Losses at step 300, " in card
    assert "| all | 2.500 | 4.125 |\n| level 1 | 1.500 | 3.125 |\n" in card
    assert "| data set books | 3.500 | not measured |\n| data set games | not measured | 5.125 |\n" in card
    assert "costs 2.079." in card


def test_the_weights_of_an_early_stop_are_those_of_the_best_evaluation():
    card = card_of(LOG, Pretraining(patience=1))
    assert "| steps | 300; the weights are those of step 200, where the validation loss was lowest |" in card
    assert "| all | 3.500 | 3.750 |" in card
    assert "learned from | 20,000 |" in card
    assert "Overfitting" not in card


def test_how_it_was_trained_is_told_with_what_was_switched_on_alone():
    card = card_of(LOG)
    assert "| learning rate | up to 0.002 over the first 5% of the steps, then along a cosine to a tenth |" in card
    assert "| rows a step, tokens a row | 16, 802 |" in card
    assert "| predicted tokens an epoch, epochs asked for | 12,345, 3 |" in card
    assert "| predicted tokens that the weights learned from | 30,000 |" in card
    assert "moving average" not in card
    training = Pretraining(schedule="wsd", ema_decay=0.99, level_weights=(1.0, 0.5))
    card = card_of(LOG, training)
    assert "then constant, down to zero over the last 20% |" in card
    assert "| moving average of the weights, decay | 0.99 |" in card
    assert "| weights of the levels in the loss | 1.0, 0.5 |" in card


def test_a_loss_that_rose_again_is_remarked():
    assert "**Overfitting:** the validation loss was lowest at step 200 (3.750) and is 4.125 at the end" in card_of(LOG)
    assert "Overfitting" not in card_of(LOG[:2])
    assert "Overfitting" not in card_of([entry(100, 4.5)])


@pytest.mark.parametrize(("last", "remarked"), [(3.0, False), (3.02, False), (3.04, True)])
def test_a_hundredth_is_not_yet_overfitting(last, remarked):
    log = [entry(100, 3.0, 3.0), entry(200, 2.0, last)]
    assert (overfitting_remark(log) is not None) == remarked
    assert overfitting_remark(log, patience=2) is None


def test_probes_are_told_with_their_data_set_and_step():
    card = card_of(LOG)
    assert "on data sets that the model was not trained on: the last item of up to\n200 users among 4 others" in card
    assert "| data set | at step | joint | catalog |\n|---|---|---|---|\n| toys | 200 | 0.625 | 0.500 |\n" in card
    assert "| toys (the tokenizer was fitted on a set of this name) | 200 |" in card_of(
        LOG, tokenizer_data={"toys": "h"}
    )
    assert "GAUC" not in card_of([entry(100, 4.5, 4.25)])


def test_probes_of_later_weights_are_not_told():
    log = [*LOG[:2], entry(300, 2.5, 4.125, **{"probe_gauc_joint/toys": 0.75})]
    assert "| toys | 200 | 0.625 | 0.500 |" in card_of(log, Pretraining(patience=1))
    assert "| toys | 300 | 0.750 | not measured |" in card_of(log)


def test_speed_is_the_median_of_the_log_where_there_is_one(tmp_path):
    assert "tokens a second" not in card_of(LOG, folder=tmp_path)
    lines = [(100, 9.0, 0.9), (100, 1000.0, 0.25), (200, 3000.0, 0.5), (300, 2000.0, 0.375)]
    text = "".join(
        json.dumps({"step": step, "tokens_per_second": speed, "mfu": mfu}) + "\n" for step, speed, mfu in lines
    )
    (tmp_path / "speed.jsonl").write_text(text + '{"step": 30', encoding="utf-8")
    card = card_of(LOG, folder=tmp_path, hardware="2 x H200")
    assert "| tokens a second on 2 x H200, median of the log | 2,000 |" in card
    assert "| model FLOPs utilization (MFU), median of the log | 37.5% |" in card


def test_nothing_of_the_template_is_left_in_the_card():
    for log in (LOG, LOG[:1], [entry(100, 4.5)]):
        card = card_of(log)
        assert "{" not in card
        assert " None |" not in card
        assert "\n\n\n" not in card
        assert "|\n#" not in card
        assert all(line.endswith("|") for line in card.splitlines() if line.startswith("|"))
