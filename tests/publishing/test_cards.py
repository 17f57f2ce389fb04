"""Cards say what the folder and the receipts say, keep what people wrote, and run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recbase_hf.bundle import hash_of_weights
from recbase_hf.cli import main
from recbase_hf.commands.pretrain import Pretrain
from recbase_hf.config import parse_arguments
from recbase_hf.errors import PublishingError
from recbase_hf.publishing import CardOptions, completed_card, push_folder, untrained_card, write_card

REPOSITORY = Path(__file__).parents[2]
OPEN = CardOptions(license="apache-2.0", data_licenses={"toys": "own"})
MINI = "reczoo/recbase-mini"
SECTIONS = ("Use", "Limits", "Fairness and popularity bias", "How to reproduce", "Citation")


def figure(value, width=0.01):
    return {"value": value, "low": value - width, "high": value + width}


@pytest.fixture
def receipt(folders, world, tmp_path):
    """Writes a receipt of the bundle; the keywords replace parts of it."""

    def write(name="games", model=None, joint=0.75):
        rankers = {
            "random": 0.5,
            "popularity (target set)": 0.625,
            "text similarity: mean": 0.6875,
            "text similarity and popularity, adapted": 0.875,
            "RecBase joint": joint,
        }
        facts = {"fingerprint": world.tokenizer.fingerprint, "weights": hash_of_weights(folders / "bundle")}
        content = {
            "format_version": 2,
            "dataset": {"name": name, "hash": f"h-{name}"},
            "protocol": {"name": "leave-last-out", "seed": 0, "num_users": 1226, "num_candidates": 5, "num_items": 900},
            "model": {**facts, "was_trained_on_this_data": name == "toys", **(model or {})},
            "rankers": [
                {"name": ranker, "metrics": {} if value is None else {
                    "gauc": figure(value), "auc": figure(value), "ndcg@1": figure(0.25), "ndcg@3": figure(0.5)}}
                for ranker, value in rankers.items()
            ],
        }  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return path

    return write


def metadata_of(card):
    from huggingface_hub import ModelCard

    return ModelCard(card).data


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figures_come_from_receipts_with_their_intervals(folders, receipt):
    options = CardOptions(**{**vars(OPEN), "receipts": [receipt(), receipt("toys")]})
    card = completed_card(folders / "bundle", repo_id=MINI, options=options)
    assert "| | GAUC | AUC | NDCG@3 |" in card
    assert "| RecBase joint | 0.7500 [0.7400, 0.7600] | 0.7500 [0.7400, 0.7600] | 0.5000 [0.4900, 0.5100] |" in card
    assert "| text similarity: mean | 0.6875 [" in card
    assert "| text similarity and popularity, adapted | 0.8750 [" in card, "what is better without a model is shown"
    assert "| RecBase joint (NOT zero-shot: the model was trained on this set) | 0.7500" in card
    results = metadata_of(card).eval_results
    gauc = next(result for result in results if (result.dataset_name, result.metric_type) == ("games", "gauc"))
    assert gauc.metric_value == 0.75
    assert gauc.metric_args == {"interval_95": [0.74, 0.76]}
    assert gauc.dataset_revision == "h-games"
    assert gauc.source_url == f"https://huggingface.co/{MINI}/blob/main/receipts/games-leave-last-out-seed-0.json"
    assert {result.task_name for result in results if result.dataset_name == "toys"} == {
        "leave-last-out, RecBase joint (NOT zero-shot: the model was trained on this set)"
    }


def test_receipts_go_along_and_are_read_again(folder_of, receipt):
    folder = folder_of("bundle")
    write_card(folder, repo_id=MINI, options=CardOptions(**{**vars(OPEN), "receipts": [receipt()]}))
    assert (folder / "receipts" / "games-leave-last-out-seed-0.json").is_file()
    first = (folder / "README.md").read_text()
    write_card(folder, repo_id=MINI)
    assert (folder / "README.md").read_text() == first
    assert "receipts/games-leave-last-out-seed-0.json" in push_folder(folder, MINI, dry_run=True).files


def test_a_missing_figure_is_an_error_that_names_it(folders, receipt):
    options = CardOptions(receipts=[receipt(joint=None)])
    with pytest.raises(PublishingError, match=r"games.json: the figure GAUC of 'RecBase joint' is missing"):
        completed_card(folders / "bundle", options=options)


def test_a_receipt_of_another_model_is_refused(folders, receipt):
    with pytest.raises(PublishingError, match="is a receipt of another model"):
        completed_card(folders / "bundle", options=CardOptions(receipts=[receipt(model={"weights": "w"})]))


def test_a_figure_that_somebody_took_out_of_the_metadata_is_missed(folder_of):
    folder = folder_of("bundle")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Model\n\n| GAUC | |\n|---|---|\n| toys | None |\n")
    with pytest.raises(PublishingError, match=r"README.md, line \d+: a figure is missing in '\| toys \| None \|'"):
        push_folder(folder, MINI, card=CardOptions(data_licenses={"toys": "own"}), dry_run=True)


def test_a_fine_tuned_bundle_does_not_say_that_it_was_pretrained(folder_of):
    folder = folder_of("bundle")
    record = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps({**record, "merged": True, "base_trained": True}))
    (folder / "README.md").unlink(missing_ok=True)
    card = " ".join(completed_card(folder, repo_id=MINI, options=OPEN).split())
    assert "another bundle fine-tuned on the histories below" in card
    assert "pretrained from scratch" not in card


# ---- what was not trained --------------------------------------------------------------------------------------------


def test_a_bundle_that_was_not_trained_says_so_and_shows_no_figures(folder_of, receipt):
    folder = folder_of("bundle")
    (folder / "training.json").unlink()
    card = completed_card(folder, repo_id=MINI, options=OPEN)
    assert "Nothing says that these weights were trained" in card
    assert "pretrained from scratch" not in card
    assert metadata_of(card).eval_results is None
    with pytest.raises(PublishingError, match="a checkpoint that was not trained shows no figures"):
        completed_card(folder, options=CardOptions(receipts=[receipt()]))


@pytest.mark.parametrize("size", ["base", "1.5b"])
def test_the_kept_cards_of_untrained_sizes_are_up_to_date(size, tmp_path):
    repo = f"reczoo/recbase-{size}"
    kept = (REPOSITORY / "hub_cards" / f"{repo}.md").read_text(encoding="utf-8")
    main(["card", "--size", size, "--repo", repo, "--output", str(tmp_path / "card.md")])
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == kept, (
        f"recbase card --size {size} --repo {repo} --output …"
    )
    assert "There are no trained weights of this size" in kept
    assert metadata_of(kept).eval_results is None
    code = re.search(r"```python\n(.*?)```", kept, re.DOTALL)[1]
    namespace: dict = {}
    exec(code, namespace)
    assert f"{namespace['count_parameters'](namespace['config']):,}" in kept


def test_an_unknown_size_is_refused():
    with pytest.raises(ValueError, match="it must be one of"):
        untrained_card("7b", repo_id="a/b")


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bundle", "tokenizer", "catalog", "toys"])
def test_cards_from_templates_are_filled(folders, name):
    options = CardOptions(license="cc-by-nc-4.0", base=MINI)
    card = completed_card(folders / name, repo_id="ann/thing", options=options)
    for heading in SECTIONS if name != "toys" else ("Use", "Limits", "Fairness and popularity bias", "Citation"):
        assert f"\n## {heading}\n" in card
    assert not re.search(r"\{\{|\{%|None\b(?!:)|\n\n\n", card)
    assert "ann/thing" in card
    data = metadata_of(card)
    assert data.license == "cc-by-nc-4.0"
    assert "recbase" in data.tags


def test_what_people_wrote_stays(folder_of):
    folder = folder_of("bundle")
    path = folder / "README.md"
    path.write_text("---\nlicense: mit\nlanguage: da\n---\n# Our model\n\nMade with care.\n\n## Versions\n\n1\n")
    write_card(folder, options=CardOptions(data_licenses={"toys": "own"}))
    write_card(folder)
    card = path.read_text()
    assert card.startswith("---\nlicense: mit\nlanguage: da\n")
    assert "# Our model\n\nMade with care.\n\n## Training data\n" in card
    assert card.count("| toys | training, tokenizer | own |") == 1
    assert card.index("## How to reproduce") < card.index("## Versions")


def peft_form(**metadata):
    """As PEFT leaves it, which fills in the metadata after the text."""
    from huggingface_hub import ModelCard, ModelCardData

    form = ModelCard.from_template(ModelCardData())
    form.data = ModelCardData(base_model="/home/ann/base", **metadata)
    form.text += "\n### Framework versions\n\n- PEFT 0.18.0"
    return str(form)


@pytest.mark.parametrize("card", [
    "---\nlicense: mit\n---\n# Our model\n\nMade with care.\n\n## Contact\n\n[More Information Needed]\n",
    peft_form(license="mit").replace("## Uses\n", "## Uses\n\nMade with care.\n"),
])  # fmt: skip
def test_a_card_with_gaps_is_kept_and_not_published(folder_of, card):
    folder = folder_of("bundle")
    (folder / "README.md").write_text(card)
    options = CardOptions(data_licenses={"toys": "own"})
    completed = completed_card(folder, options=options)
    assert "Made with care." in completed
    assert metadata_of(completed).license == "mit"
    with pytest.raises(PublishingError, match=r"\[More Information Needed\] is not filled in"):
        push_folder(folder, MINI, card=options, dry_run=True)


def test_a_form_that_nobody_filled_in_makes_way_and_its_license_stays(folder_of):
    folder = folder_of("bundle")
    (folder / "README.md").write_text(peft_form(license="mit", language="da"))
    card = completed_card(folder)
    assert "[More Information Needed]" not in card
    assert "/home/ann" not in card
    assert (metadata_of(card).license, metadata_of(card).language) == ("mit", "da")


def test_a_card_that_is_not_utf_8_is_named(folder_of):
    folder = folder_of("bundle")
    (folder / "README.md").write_bytes("# Modèle\n".encode("latin-1"))
    with pytest.raises(PublishingError, match=r"README.md is no UTF-8 text .*; save it again in that encoding"):
        completed_card(folder)


def test_metadata_that_is_not_yaml_is_named(folder_of):
    folder = folder_of("bundle")
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n# Model\n")
    with pytest.raises(PublishingError, match=r"README.md: what is between the --- lines is not YAML"):
        completed_card(folder)


def test_the_settings_on_the_card_can_be_given_to_the_command(folders, tmp_path):
    card = completed_card(folders / "bundle", options=OPEN)
    settings = tmp_path / "settings.yaml"
    settings.write_text(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    options = parse_arguments(Pretrain, ["--config", str(settings)], program="pretrain", description="")
    assert (options.size, options.epochs) == ("tiny", 2.0)


def test_a_merged_adapter_of_unknown_making_says_so(folder_of):
    folder = folder_of("bundle")
    (folder / "training.json").write_text(json.dumps({"settings": {}, "base_trained": True, "merged": True}))
    card = completed_card(folder, options=CardOptions(base=MINI))
    assert f"recbase merge --model {MINI} --adapter ADAPTER --output merged" in card
    assert "How the adapter was made is not recorded." in card
    assert "examples/pretrain.py" not in card


def test_energy_is_told_from_the_log_where_there_is_one(folder_of, tmp_path):
    folder = folder_of("bundle")
    assert "Neither was recorded" in completed_card(folder)
    lines = [{"step": 1, "tokens_per_second": 1000.0}, {"step": 2, "tokens_per_second": 2000.0}]
    (tmp_path / "speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [lines[0], *lines, lines[1]]))
    told = completed_card(folder, options=CardOptions(run=tmp_path, hardware="2 x H200"))
    assert "About 1.3 hours of training on 2 x H200: 7,200,000 predicted tokens at 1,500 a second" in told
    assert "The power was not measured" in told
    told = completed_card(folder, options=CardOptions(run=tmp_path, watts=300))
    assert "At 300 W, as stated by whoever trained, that is about 0.40 kWh" in told
