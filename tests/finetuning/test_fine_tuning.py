"""What is trained, what stays, and that interruptions and micro-batches change nothing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from finetuning.small_shop import load_shop, tune, write_base, write_shop
from recbase_hf.adapters import Base, load_over, merged_bundle
from recbase_hf.bundle import hash_of_weights, load_bundle
from recbase_hf.errors import DataError, LaunchError
from recbase_hf.finetuning.adapters import add_adapter, save_adapter
from recbase_hf.finetuning.clicks import ClickObjective
from recbase_hf.finetuning.settings import FineTuning, validation_gauc
from recbase_hf.language_model import new_language_model, qwen2_config
from recbase_hf.training.pretrain import train_language_model
from tiny_world import make_tokenizer


def rows_that_moved(tuned, base):
    """Of the embeddings, by comparing the merged model with the base."""
    before = load_bundle(base)[0].get_input_embeddings().weight
    after = tuned.wrapped.merge_and_unload().get_input_embeddings().weight
    return set(torch.nonzero((before != after).any(dim=1))[:, 0].tolist())


def save(tuned, folder, base):
    """Like the command does."""
    tokenizer = make_tokenizer()
    save_adapter(
        folder,
        tuned.wrapped,
        tuned.weights,
        base=Base(str(base), tokenizer.fingerprint, hash_of_weights(base)),
        record={"settings": {}},
    )
    return folder


def logits_of(model):
    ids = torch.arange(1, 33).view(2, 16)
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.mark.parametrize("objective", ["next-item", "ctr", "both"])
def test_every_objective_learns_what_follows(base, shop, tmp_path, new_accelerator, objective):
    settings = {"objective": objective, "train_rows": ("codes",), "patience": 4}
    epochs = 10.0 if objective == "ctr" else 8.0
    tuned = tune(base, shop, tmp_path, new_accelerator(), epochs=epochs, **settings)
    assert tuned.log[0]["step"] == 0, "the base is judged first"
    best = max(validation_gauc(entry) for entry in tuned.log)
    assert best > validation_gauc(tuned.log[0]) + 0.1
    name = {"next-item": "train_loss", "ctr": "train_ctr_loss", "both": "train_ctr_loss"}[objective]
    losses = [entry[name] for entry in tuned.log if name in entry]
    assert losses[-1] < losses[0]
    assert bool(tuned.clicks) == (objective != "next-item")


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"train_rows": ("reserved",)}, "reserved"),
        ({"train_rows": ("level-3", "level-4"), "objective": "both"}, "deep"),
        ({"method": "embeddings"}, "codes"),
        ({}, "none"),
    ],
)
def test_the_rows_that_were_named_move_and_no_others(base, shop, tmp_path, new_accelerator, settings, rows):
    tokenizer = make_tokenizer()
    layout, vocabulary = tokenizer.layout, load_bundle(base)[0].config.vocab_size
    wanted = {
        "reserved": range(layout.num_tokens, vocabulary),
        "deep": range(1 + 2 * layout.codebook_size, 1 + layout.num_codes),
        "codes": range(1, 1 + layout.num_codes),
        "none": range(0),
    }[rows]
    tuned = tune(base, shop, tmp_path, new_accelerator(), epochs=2, **settings)
    assert len(wanted) or rows == "none"
    assert rows_that_moved(tuned, base) == set(wanted)


def test_rows_move_where_the_head_has_rows_of_its_own(shop, tmp_path, new_accelerator):
    base = write_base(tmp_path / "untied", tie_word_embeddings=False)
    tuned = tune(base, shop, tmp_path / "run", new_accelerator(), epochs=2, train_rows=("codes",))
    folder = save(tuned, tmp_path / "adapter", base)
    expected = logits_of(tuned.model)
    untouched = load_bundle(base)[0]
    loaded = load_over(load_bundle(base)[0], folder, "other").get_base_model()
    assert torch.equal(logits_of(loaded), expected)
    merged = merged_bundle(folder)[0]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert not torch.equal(merged.state_dict()[name], untouched.state_dict()[name])


def test_embeddings_alone_leave_all_layers_as_they_are(base, shop, tmp_path, new_accelerator):
    tuned = tune(base, shop, tmp_path, new_accelerator(), epochs=2, method="embeddings", train_rows=("level-4",))
    before = load_bundle(base)[0].state_dict()
    after = tuned.wrapped.merge_and_unload().state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"model.embed_tokens.weight", "lm_head.weight"}
    assert tuned.trained == 8 * 32


def test_full_fine_tuning_moves_all_weights(base, shop, tmp_path, new_accelerator):
    tuned = tune(base, shop, tmp_path, new_accelerator(), epochs=2, method="full", objective="both")
    before = load_bundle(base)[0].state_dict()
    assert before.keys() == tuned.weights.keys(), "the head for clicks is gone"
    assert all(not torch.equal(before[name], tuned.weights[name]) for name in before)


@pytest.mark.parametrize("settings", [{"objective": "both", "train_rows": ("codes",)}, {"objective": "ctr"}])
def test_a_resumed_run_equals_an_uninterrupted_one(base, shop, tmp_path, new_accelerator, settings):
    settings = {"epochs": 4, "lora_dropout": 0.1, "patience": 3, "ema_decay": 0.5, **settings}
    straight = tune(base, shop, tmp_path / "straight", new_accelerator(), **settings)
    with pytest.raises(KeyboardInterrupt):
        tune(base, shop, tmp_path / "resumed", new_accelerator(), interrupt_after=7, **settings)
    resumed = tune(base, shop, tmp_path / "resumed", new_accelerator(), **settings)
    assert straight.weights.keys() == resumed.weights.keys()
    for name, value in straight.weights.items():
        assert torch.equal(value, resumed.weights[name]), name
    assert straight.log == resumed.log
    assert straight.clicks == resumed.clicks


def test_checkpoints_of_adapters_are_small(base, shop, tmp_path, new_accelerator):
    from safetensors.torch import load_file

    tune(base, shop, tmp_path, new_accelerator(), epochs=1, rank=2, target="attention", objective="both")
    (*_, last) = sorted((tmp_path / "checkpoints").iterdir())
    names = load_file(last / "model.safetensors").keys()
    assert all("lora_" in name or name.startswith("click_head.") for name in names)


def test_micro_batches_change_nothing_but_rounding(base, shop, tmp_path, new_accelerator):
    settings = {"epochs": 2, "objective": "both"}
    whole = tune(base, shop, tmp_path / "1", new_accelerator(), **settings)
    accelerator = new_accelerator(gradient_accumulation=4)
    parts = tune(base, shop, tmp_path / "4", accelerator, gradient_accumulation=4, **settings)
    for name, value in whole.weights.items():
        torch.testing.assert_close(value, parts.weights[name], rtol=1e-3, atol=1e-5)


def test_another_base_does_not_take_up_the_checkpoint(base, shop, tmp_path, new_accelerator):
    tune(base, shop, tmp_path / "run", new_accelerator(), epochs=1)
    other = write_base(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"other settings .*base"):
        tune(other, shop, tmp_path / "run", new_accelerator(), epochs=1)


def test_a_base_that_fine_tuning_only_harms_is_kept(base, shop, tmp_path, new_accelerator, caplog):
    tuned = tune(base, shop, tmp_path, new_accelerator(), epochs=1, learning_rate=1e-12, patience=1)
    assert "whose weights are kept" in caplog.text
    assert torch.equal(logits_of(tuned.model), logits_of(load_bundle(base)[0]))


def test_a_merged_adapter_scores_as_the_unmerged(base, shop, tmp_path, new_accelerator):
    tuned = tune(base, shop, tmp_path / "run", new_accelerator(), epochs=3, train_rows=("codes", "reserved"))
    folder, expected = save(tuned, tmp_path / "adapter", base), logits_of(tuned.model)
    assert not torch.equal(expected, logits_of(load_bundle(base)[0]))
    merged, tokenizer, name = merged_bundle(folder)
    torch.testing.assert_close(logits_of(merged), expected, rtol=1e-5, atol=1e-5)
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert (tokenizer.fingerprint, name) == (make_tokenizer().fingerprint, str(base))


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "attention"},
        {"target": "all-linear"},
        {"target": "all-linear", "train_rows": ("level-4", "reserved")},
    ],
)
def test_adapters_of_the_size_mini_are_below_two_megabytes(tmp_path, settings):
    from recbase_hf.modeling.token_layout import TokenLayout

    layout = TokenLayout(num_levels=4, codebook_size=1024)
    model = new_language_model(qwen2_config("mini", layout), seed=0)
    wrapped = add_adapter(model, FineTuning(**settings), layout, base="reczoo/recbase-mini")
    save_adapter(tmp_path / "a", wrapped, model.state_dict(), base=Base("reczoo/recbase-mini", "f", "w"), record={})
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "a").iterdir()}
    assert sum(sizes.values()) < 2_000_000
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "reczoo/recbase-mini"
    )


def test_what_is_held_out_is_not_learned_from(shop, tmp_path):
    whole, less = load_shop(shop, hold_out_last=0), load_shop(shop, hold_out_last=2)
    targets = [part.train.read(range(len(part.train))).num_targets for part in (whole, less)]
    assert targets[0] - targets[1] == 4 * 2 * whole.users["shop"], "two items of four codes of everybody"


def test_fewer_users_are_judged_by_the_same_others(shop):
    few, many = load_shop(shop, max_users=5), load_shop(shop)
    assert few.users == {"shop": 5}
    assert few.validation.hash == many.validation.hash


def test_a_shop_without_users_is_refused(tmp_path):
    with pytest.raises(DataError, match="fine-tuning needs one such user to learn from"):
        load_shop(write_shop(tmp_path / "empty", users=1))


def test_a_window_that_the_base_cannot_read_is_refused(shop):
    with pytest.raises(ValueError, match="max_items is 17, but the base reads 16"):
        load_shop(shop, max_items=17)


@pytest.mark.parametrize("objective", ["next-item", "both"])
def test_sharded_launches_are_refused(base, shop, tmp_path, objective):
    sharded = SimpleNamespace(num_processes=1, deepspeed_plugin=object(), state=SimpleNamespace(), is_main_process=True)
    model, _ = load_bundle(base)
    if objective == "next-item":
        model.lm_head.weight.requires_grad_(False)
    tuning = FineTuning(objective=objective)
    data = load_shop(shop, tuning)
    with pytest.raises(LaunchError, match="trained on whole models"):
        train_language_model(
            model,
            data.train,
            data.validation,
            tuning,
            accelerator=sharded,
            folder=tmp_path,
            objective=None if data.examples is None else ClickObjective(data.examples, data.train.layout),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "full", "train_rows": ("codes",)}, "full fine-tuning trains all rows"),
        ({"four_bit": True, "method": "embeddings"}, "use --method lora"),
        ({"rank": 0}, "rank is 0; it must be above 0"),
        ({"sampled_negatives": 0, "in_batch_negatives": 0}, "one must be above"),
        ({"target": "mlp"}, "one of attention, all-linear"),
        ({"objective": "clicks"}, "one of next-item, ctr, both"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FineTuning(**settings)


def test_rows_that_are_not_there_are_refused(base):
    model, tokenizer = load_bundle(base)
    with pytest.raises(ValueError, match="'level-5', but there are only: level-1, level-2"):
        add_adapter(model, FineTuning(train_rows=("level-5",)), tokenizer.layout, base="x")


@pytest.mark.parametrize("objective", ["ctr", "both"])
def test_bf16_trains_too(base, shop, tmp_path, new_accelerator, objective):
    accelerator = new_accelerator(mixed_precision="bf16")
    tuned = tune(base, shop, tmp_path, accelerator, epochs=2, objective=objective, train_rows=("codes",))
    assert all(value.dtype == torch.float32 for value in tuned.weights.values())
    losses = [entry["train_ctr_loss"] for entry in tuned.log if "train_ctr_loss" in entry]
    assert losses[-1] < losses[0]


def test_gradient_checkpointing_changes_nothing(base, shop, tmp_path, new_accelerator):
    settings = {"epochs": 1, "objective": "both"}
    plain = tune(base, shop, tmp_path / "1", new_accelerator(), **settings)
    saving = tune(base, shop, tmp_path / "2", new_accelerator(), gradient_checkpointing=True, **settings)
    for name, value in plain.weights.items():
        torch.testing.assert_close(value, saving.weights[name], rtol=1e-4, atol=1e-6)
