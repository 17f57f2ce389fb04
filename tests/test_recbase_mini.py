"""The bundle that comes with the package: small, whole, and innocent of the sets that it is shown on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbase_hf import ItemCatalog, RecBaseScorer
from recbase_hf.bundle import bundle_file, load_bundle, located
from recbase_hf.files import read_json
from recbase_hf.scoring.calibration import Calibration

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "checkpoints" / "recbase-mini"
TRAINED_ON = {
    *("amazon-games", "amazon-industrial", "amazon-office", "hm-fashion"),
    *("jester-jokes", "lastfm-hetrec", "movielens-100k", "steam-reviews"),
}


def test_it_is_found_by_name_and_small():
    assert Path(located("recbase-mini")).resolve() == FOLDER.resolve()
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 20e6
    assert not list(FOLDER.rglob("*.bin"))


def test_a_folder_of_that_name_goes_first_and_other_names_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recbase-mini").mkdir()
    for name in ("recbase-mini", "somebody/recbase-mini", "./recbase-mini", "recbase-huge", "__pycache__"):
        assert located(name) == name


def test_its_parts_were_made_from_the_eight_sets_alone():
    settings = read_json(FOLDER / "training.json")["settings"]
    for part in ("data", "items", "tokenizer_data", "tokenizer_items"):
        assert set(settings[part]) == TRAINED_ON
    calibration = Calibration.load("recbase-mini")
    assert calibration is not None
    assert set(calibration.fitted_on) == TRAINED_ON
    assert set(calibration.items_of) == TRAINED_ON
    assert settings["hold_out_last"] == 1


def test_it_ranks_items_by_their_vectors_offline():
    scorer = RecBaseScorer.from_pretrained("recbase-mini")
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(8, 1, 384)) + 0.4 * rng.normal(size=(8, 25, 384))
    vectors = groups.reshape(-1, 384)
    items = [{"item_id": f"item-{row}", "title": f"thing {row}"} for row in range(len(vectors))]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    catalog = ItemCatalog.from_items(items, tokenizer=scorer.tokenizer, vectors=vectors)
    right = of_model = 0.0
    for group in range(8):
        own = [f"item-{row}" for row in range(25 * group, 25 * group + 25)]
        candidates = [own[20], *(f"item-{(25 * group + 25 * step + 3) % 200}" for step in range(1, 8))]
        scores = scorer.score_calibrated(own[:10], candidates, catalog=catalog)
        right += (scores[0] > scores[1:]).mean() / 8
        joint = scorer.score(own[:10], candidates, catalog=catalog, method="joint")
        of_model += (joint[0] > joint[1:]).mean() / 8
    assert right > 0.9, "a group's own items before those of others"
    assert of_model > 0.85, "by the language model alone, too"


def test_it_is_in_half_precision_on_disk_and_in_single_on_the_cpu():
    config = bundle_file("recbase-mini", "config.json")
    assert config is not None
    assert read_json(config)["dtype"] == "float16"
    model, tokenizer = load_bundle("recbase-mini", device="cpu")
    assert str(model.dtype) == "torch.float32"
    assert tokenizer.fingerprint == model.config.recbase["fingerprint"]


def test_a_misspelt_name_does_not_ask_the_network():
    for name in ("recbase-mni", "recbase-huge"):
        with pytest.raises(FileNotFoundError, match=f"no folder {name}.*recbase-mini"):
            load_bundle(name)
