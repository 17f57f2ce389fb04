"""Zero-shot probes give what an evaluation gives, and leave the training as it was."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recbase_hf.data.domain import ItemVectors, load_domain
from recbase_hf.errors import LeakageError
from recbase_hf.evaluation.metrics import gauc
from recbase_hf.scoring.scorer import RecBaseScorer
from recbase_hf.training.loss import give_losses
from recbase_hf.training.probe import load_probes, measure_probes
from tiny_world import HashEncoder, make_items, make_model, make_tokenizer
from training.small_runs import LAYOUT, assert_same_weights, make_small_model, make_training, train

SOURCE = ItemVectors(HashEncoder.name, precomputed="hash")
TOKENIZER = make_tokenizer(LAYOUT.num_levels, LAYOUT.codebook_size)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A data set in the two-table form, with vectors beside it."""
    folder = tmp_path_factory.mktemp("data") / "toys"
    folder.mkdir()
    items, rng = make_items(30), np.random.default_rng(0)
    ids = [item["item_id"] for item in items]
    pq.write_table(pa.Table.from_pylist(items), folder / "items.parquet")
    chosen = np.concatenate([rng.permutation(30)[:5] for _ in range(12)])
    events = {"user_id": np.repeat([f"u{user}" for user in range(12)], 5), "item_id": [ids[row] for row in chosen]}
    pq.write_table(pa.table({**events, "order": list(range(5)) * 12}), folder / "interactions.parquet")
    np.save(folder / "hash_f16.npy", HashEncoder().encode([item["title"] for item in items]).astype(np.float16))
    pq.write_table(pa.table({"item_id": ids}), folder / "hash_ids.parquet")
    return folder


@pytest.fixture(scope="module")
def probes(toys):
    return load_probes([toys], TOKENIZER, SOURCE)


def test_figures_are_those_of_the_scorer(probes):
    found = measure_probes(probes, make_model(LAYOUT))
    assert list(found) == ["probe_gauc_joint/toys", "probe_gauc_catalog/toys"]
    task, scorer = probes[0]._task, RecBaseScorer(make_model(LAYOUT), TOKENIZER)
    assert task.settings["num_users"] == 12
    assert task.settings["num_candidates"] == 5
    for method in ("joint", "catalog"):
        scores = scorer.score_rows(
            task.histories, task.candidates_of(0, len(task)), catalog=probes[0]._catalog, method=method
        )
        assert found[f"probe_gauc_{method}/toys"] == gauc(task.labels, np.concatenate(scores), task.user_of_row).value


@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_in_training_is_as_before(probes, compiled):
    model = make_small_model().train()
    if compiled:
        for layer in model.model.layers:
            layer.compile(backend="eager")
    give_losses(model, chunk=8)
    forward, attention = model.forward, model.config._attn_implementation
    measure_probes(probes, model)
    assert model.training
    assert all(module.training for module in model.modules())
    assert model.forward == forward
    assert model.config._attn_implementation == attention == model.model.config._attn_implementation


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}, {"ema_decay": 0.9}])
def test_probes_come_on_the_way_and_change_nothing(tmp_path, new_accelerator, probes, options):
    training = make_training(probe_data=("toys",), probe_every=4, evaluate_every=3, **options)
    model, log = train(tmp_path / "with", new_accelerator(), training, probes=probes)
    with_probe = [entry["step"] for entry in log if "probe_gauc_joint/toys" in entry]
    assert with_probe == [4, 8, 9]
    assert measure_probes(probes, model).items() <= log[-1].items()
    without, _ = train(tmp_path / "without", new_accelerator(), make_training(evaluate_every=3, **options))
    assert_same_weights(model, without)


def test_data_that_is_trained_on_is_refused(toys):
    content = load_domain(toys, SOURCE).hash
    with pytest.raises(LeakageError, match=r"toys is the data set playthings, which is trained on"):
        load_probes([toys], TOKENIZER, SOURCE, trained_on={"playthings": content})


def test_two_data_sets_of_one_name_are_refused(toys):
    with pytest.raises(ValueError, match=r"same name \(toys\)"):
        load_probes([toys, toys], TOKENIZER, SOURCE)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_probes([tmp_path / "nowhere"], TOKENIZER, SOURCE)


def test_data_in_which_nobody_can_be_evaluated_is_named(tmp_path, toys):
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    for path in toys.iterdir():
        (lonely / path.name).write_bytes(path.read_bytes())
    events = pq.read_table(toys / "interactions.parquet").to_pylist()[::5]  # one event a user
    pq.write_table(pa.Table.from_pylist(events), lonely / "interactions.parquet")
    with pytest.raises(ValueError, match=r"probe_data .*lonely: none of 12 users"):
        load_probes([lonely], TOKENIZER, SOURCE)


def test_scoring_leaves_the_random_numbers_of_training_alone(probes):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    measure_probes(probes, make_model(LAYOUT))
    assert torch.equal(torch.random.get_rng_state(), before)
