"""Each known disease is found by its check, what is healthy is left in peace, and what is missing is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from recbase_hf import ItemCatalog, RecBaseTokenizer
from recbase_hf.doctor import Diagnosis, ItemTable, Thresholds, diagnose, diagnose_catalogs, diagnose_items
from recbase_hf.doctor.tables import table_of_catalog
from recbase_hf.errors import DataError, FingerprintMismatchError
from tiny_world import make_tokenizer, make_world

CODEBOOK = 256


def healthy(name: str = "toys", items: int = 400, seed: int = 0) -> ItemTable:
    """Different texts, codes evenly used, decoded vectors near the vectors."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = np.stack([rng.permutation(items) % CODEBOOK for _ in range(4)], axis=1)
    decoded = vectors + 0.05 * rng.normal(size=vectors.shape).astype(np.float32)
    texts = [f"{name} {row}" for row in range(items)]
    return ItemTable(name, [f"id-{row}" for row in range(items)], texts, texts, codes, vectors, decoded)


def severities(diagnosis: Diagnosis, subject: str = "toys") -> dict[str, str]:
    return {finding.check: finding.severity for finding in diagnosis.findings if finding.subject == subject}


def found(table: ItemTable, check: str, **options) -> tuple[str, str]:
    diagnosis = diagnose([table], codebook_size=CODEBOOK, **options)
    (finding,) = [finding for finding in diagnosis.findings if (finding.subject, finding.check) == (table.name, check)]
    assert (finding.fix != "") == (finding.severity in ("warning", "fault")) or finding.severity == "not measured"
    return finding.severity, finding.message


def with_codes(table: ItemTable, rows, codes) -> ItemTable:
    changed = table.codes.copy()
    changed[rows] = codes
    return replace(table, codes=changed)


def test_a_healthy_tokenizer_has_no_findings():
    fitted = np.percentile(np.linspace(0.9, 1.0, 50), np.arange(101))
    diagnosis = diagnose([healthy(), healthy("shoes", seed=1)], codebook_size=CODEBOOK, fitted_cosines=fitted)
    assert {finding.severity for finding in diagnosis.findings} == {"ok"}
    assert diagnosis.worst == "ok"


# ---- diseases --------------------------------------------------------------------------------------------------------


def test_empty_texts():
    table = healthy()
    assert found(replace(table, texts=["", *table.texts[1:]]), "empty texts")[0] == "warning"
    severity, message = found(replace(table, texts=[*table.texts[:390], *[" "] * 10]), "empty texts")
    assert severity == "fault"
    assert message == "10 items (2.5 %) have no text, the first is 'id-390'"
    assert found(replace(table, left_out={"no text": 9}), "empty texts")[0] == "fault"


def test_repeated_texts():
    table = healthy()
    severity, message = found(replace(table, texts=["same"] * 30 + table.texts[30:]), "repeated texts")
    assert severity == "warning"
    assert "30 items (7.5 %)" in message
    assert "the most frequent 30 times" in message


def test_collisions_of_different_texts_but_not_of_equal_ones():
    table = with_codes(healthy(), slice(0, 60), [1, 2, 3, 4])
    severity, message = found(table, "collisions")
    assert severity == "fault"
    assert message.startswith("15.0 % of 400 different texts share their ID")
    assert found(with_codes(healthy(), slice(0, 16), [1, 2, 3, 4]), "collisions")[0] == "warning"
    same = replace(table, texts=["same"] * 60 + table.texts[60:])
    assert found(same, "collisions")[0] == "ok"


def test_a_bucket_of_different_texts_is_shown_with_titles():
    severity, message = found(with_codes(healthy(), slice(0, 400, 50), [1, 2, 3, 4]), "largest bucket")
    assert severity == "fault"
    assert "8 items (2.0 %) with 8 different texts share the ID (1, 2, 3, 4), such as 'toys 0', 'toys 50'" in message
    assert found(with_codes(healthy(), slice(0, 5), [1, 2, 3, 4]), "largest bucket")[0] == "ok"


def test_an_embedding_run_that_broke_off():
    diagnosis = diagnose([with_codes(healthy(), slice(100, 300), [1, 2, 3, 4])], codebook_size=CODEBOOK)
    (finding,) = [finding for finding in diagnosis.findings if finding.check == "largest bucket"]
    assert "in consecutive rows from 101 on" in finding.message
    assert "broke off" in finding.fix
    vectors = healthy().vectors.copy()
    vectors[100:300] = vectors[100]
    severity, message = found(replace(healthy(), vectors=vectors), "vectors")
    assert (severity, message.split(" have")[0]) == ("fault", "200 of 400 different texts (50.0 %)")


def test_collapsed_codes():
    table = healthy()
    assert found(with_codes(table, slice(None), [1, 2, 3, 4]), "code use")[0] == "fault"
    single = table.codes.copy()
    single[:, 2] = 9
    severity, message = found(replace(table, codes=single), "code use")
    assert severity == "fault"
    assert message.startswith("level 3 uses one code only")
    few = table.codes.copy()
    few[:, 0] %= 30
    assert found(replace(table, codes=few), "code use")[0] == "warning"


def test_a_small_table_is_not_blamed_for_a_large_codebook():
    table = healthy(items=40)
    assert severities(diagnose([table], codebook_size=100_000))["code use"] == "ok"


@pytest.mark.parametrize("of_the_first", [25, 961])
def test_repeated_items_do_not_make_the_use_of_codes_uneven(of_the_first):
    """A faultless tokenizer: each of 40 texts has an ID of its own, and the first has many items."""
    text = np.concatenate([np.zeros(of_the_first, dtype=int), np.arange(1, 40).repeat((1000 - of_the_first) // 39)])
    codes = np.stack([np.random.default_rng(level).permutation(CODEBOOK)[:40] for level in range(4)], axis=1)[text]
    texts = [f"toy {number}" for number in text]
    table = ItemTable("toys", [str(row) for row in range(1000)], texts, texts, codes)
    severity, message = found(table, "code use")
    assert (severity, "99.9 % of what 40 codes could give" in message) == ("ok", True)
    assert found(replace(table, texts=None), "code use")[0] == ("warning" if of_the_first == 25 else "fault")


def test_items_of_a_few_texts_are_too_few_to_judge_codes_by():
    table = replace(healthy(), texts=[f"toy {row % 19}" for row in range(400)])
    table = replace(table, codes=table.codes[np.arange(400) % 19])
    severity, message = found(table, "code use")
    assert severity == found(table, "bunching")[0] == "not measured"
    assert message == "19 different items are too few to judge the use of codes (20 are needed)"


def test_a_counting_last_level_is_no_collapse():
    table = healthy()
    counter = np.column_stack([table.codes, np.zeros(len(table), dtype=int)])
    severity, message = found(replace(table, codes=counter), "code use")
    assert severity == "ok"
    assert "only counts" in message
    assert found(replace(table, codes=counter), "bunching")[0] == "ok"


def test_bunching_in_the_lowest_codes():
    table = healthy()
    codes = table.codes.copy()
    codes[:200, 3] %= 8
    severity, message = found(replace(table, codes=codes), "bunching")
    assert severity == "warning"
    assert "on level 4 (3.1 % expected)" in message


def test_level_one_as_a_label_of_the_data_set():
    tables = [healthy(), healthy("shoes", seed=1)]
    label = [
        replace(table, codes=np.column_stack([table.codes[:, 0] % 100 + 100 * number, table.codes[:, 1:]]))
        for number, table in enumerate(tables)
    ]
    diagnosis = diagnose(label, codebook_size=CODEBOOK)
    assert severities(diagnosis, "all tables") == {"level 1 and data set": "fault"}
    assert diagnosis.joint.overlap[0][1] == 0.0
    assert severities(diagnose(tables, codebook_size=CODEBOOK), "all tables") == {"level 1 and data set": "ok"}


def test_too_few_items_are_not_taken_for_a_label():
    tables = [healthy(items=15), healthy("shoes", items=15, seed=1)]
    diagnosis = diagnose(tables, codebook_size=CODEBOOK)
    assert severities(diagnosis, "all tables") == {"level 1 and data set": "not measured"}


def test_drift_from_the_fitted_items():
    fitted = np.linspace(0.995, 1.0, 101)
    assert found(healthy(), "drift", fitted_cosines=fitted)[0] == "fault"
    assert found(healthy(), "drift", fitted_cosines=np.linspace(0.5, 1.0, 101))[0] == "ok"


def test_codes_that_say_nothing_of_the_texts():
    table = healthy()
    unrelated = replace(table, decoded=np.roll(table.decoded, 7, axis=0))
    assert found(unrelated, "neighbor recall")[0] == "fault"
    assert found(unrelated, "reconstruction")[0] == "fault"


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said():
    table = healthy()
    bare = diagnose([replace(table, texts=None, codes=None, vectors=None, decoded=None)])
    assert severities(bare) == dict.fromkeys(["texts", "vectors", "semantic IDs"], "not measured")
    without_texts = severities(diagnose([replace(table, texts=None)], codebook_size=CODEBOOK))
    assert without_texts["collisions"] == without_texts["largest bucket"] == "not measured"
    without_tokenizer = diagnose([replace(table, decoded=None)], codebook_size=CODEBOOK)
    assert severities(without_tokenizer)["reconstruction"] == "not measured"
    assert severities(without_tokenizer, "all tables") == {"level 1 and data set": "not measured"}
    left_out = diagnose([replace(table, left_out={"no vector": 30})], codebook_size=CODEBOOK)
    assert severities(left_out)["left out"] == "not measured"


@pytest.mark.parametrize("fitted", [None, np.full(101, np.nan)])
def test_a_tokenizer_without_fitted_cosines_measures_no_drift(fitted):
    severity, message = found(healthy(), "drift", fitted_cosines=fitted)
    assert severity == "not measured"
    assert "does not say" in message


def test_a_codebook_size_that_is_taken_from_the_codes_is_said():
    diagnosis = diagnose([healthy()])
    assert diagnosis.codebook_size == CODEBOOK
    assert severities(diagnosis, "all tables")["codebook size"] == "not measured"


def test_one_item_and_identical_vectors_end_in_verdicts():
    one = healthy(items=1)
    assert severities(diagnose([one], codebook_size=CODEBOOK))["neighbor recall"] == "not measured"
    table = healthy()
    alike = replace(table, vectors=np.ones_like(table.vectors), codes=np.ones_like(table.codes))
    verdicts = severities(diagnose([replace(alike, decoded=alike.vectors)], codebook_size=CODEBOOK))
    assert {check for check, severity in verdicts.items() if severity == "fault"} == {
        "vectors", "collisions", "largest bucket", "code use"
    }  # fmt: skip
    assert verdicts["neighbor recall"] == "not measured"


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_tables_are_named():
    table = healthy(items=5)
    vectors = table.vectors.copy()
    vectors[2, 0] = np.nan
    for change, message in [
        ({"vectors": vectors}, "toys, row 3 of vectors (item 'id-2'): NaN or infinity, as in 0 more"),
        ({"titles": ["one"]}, "1 titles for 5 items"),
        ({"codes": table.codes - 300}, "is negative"),
        ({"codes": table.codes.astype(float)}, "give integers"),
        ({"vectors": table.vectors[0]}, "12 vectors for 5 items"),
        ({"vectors": table.vectors.astype(int)}, "give floats"),
    ]:
        with pytest.raises(DataError) as error:
            replace(table, **change)
        assert message in str(error.value)
    with pytest.raises(DataError, match="there are no items"):
        ItemTable("toys", [], [])


def test_tables_that_do_not_go_together_are_named():
    table = healthy()
    with pytest.raises(DataError, match="name of its own"):
        diagnose([table, table])
    with pytest.raises(DataError, match="at least one"):
        diagnose([])
    with pytest.raises(DataError, match=r"toys, row \d+, level 1: code \d+ is out of range"):
        diagnose([table], codebook_size=100)
    with pytest.raises(DataError, match="different length"):
        diagnose([table, replace(healthy("shoes"), codes=table.codes[:, :2])], codebook_size=CODEBOOK)
    with pytest.raises(DataError, match="101 percentiles"):
        diagnose([table], codebook_size=CODEBOOK, fitted_cosines=np.zeros(3))


def test_a_missing_column_and_an_empty_table_are_named():
    with pytest.raises(DataError, match="no column 'item_id'"):
        diagnose_items([{"id": "a", "title": "Chess"}])
    with pytest.raises(DataError, match="items table: no column 'item_id'; the columns are \\[\\]"):
        diagnose_items([])


# ---- from items and catalogs -----------------------------------------------------------------------------------------


def test_bare_items_are_judged_before_training():
    items = [{"item_id": row, "title": f"game {row}"} for row in range(30)]
    diagnosis = diagnose_items(items, np.random.default_rng(0).normal(size=(30, 4)), name="toys")
    assert severities(diagnosis)["vectors"] == "ok"
    assert severities(diagnosis)["semantic IDs"] == "not measured"
    assert severities(diagnose_items(items, np.ones((30, 4)), name="toys"))["vectors"] == "fault"
    with pytest.raises(DataError, match="29 vectors for 30 items"):
        diagnose_items(items, np.ones((29, 4)))


def test_catalogs_are_judged_with_and_without_their_tokenizer(world):
    with_tokenizer = diagnose_catalogs([world.catalog], world.tokenizer)
    assert severities(with_tokenizer, "catalog")["reconstruction"] != "not measured"
    assert with_tokenizer.codebook_size == world.catalog.codebook_size
    alone = diagnose_catalogs({"toys": world.catalog})
    assert severities(alone)["reconstruction"] == "not measured"
    assert severities(alone)["collisions"] == severities(with_tokenizer, "catalog")["collisions"]
    two = diagnose_catalogs([world.catalog, world.catalog])
    assert two.joint.names == ("catalog 1", "catalog 2")
    assert two.joint.level_one.bits == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("policy", "counts"), [("reassign", False), ("digit", True)])
def test_collision_policies_that_leave_none_are_judged_fairly(world, policy, counts):
    tokenizer = RecBaseTokenizer(
        quantizer=world.tokenizer.quantizer, item_template=world.tokenizer.item_template, collisions=policy
    )
    catalog = ItemCatalog.from_items(world.items, tokenizer=tokenizer, vectors=world.catalog.vectors)
    for diagnosis in (diagnose_catalogs([catalog], tokenizer), diagnose_catalogs([catalog])):
        assert severities(diagnosis, "catalog")["collisions"] == "ok"
        assert diagnosis.tables[0].codes.last_level_counts == counts
    removed = catalog.remove([world.items[2]["item_id"]])
    assert diagnose_catalogs([removed], tokenizer).tables[0].codes.last_level_counts == counts


def test_a_catalog_of_published_codes_is_judged_as_far_as_it_goes(world):
    catalog = ItemCatalog.from_codes(world.items, world.catalog.codes, codebook_size=8)
    found = severities(diagnose_catalogs([catalog]), "catalog")
    assert found["collisions"] == severities(diagnose_catalogs([world.catalog]), "catalog")["collisions"]
    assert found["vectors"] == found["reconstruction"] == "not measured"


def test_a_catalog_of_another_tokenizer_is_refused(world):
    with pytest.raises(FingerprintMismatchError, match="catalog"):
        diagnose_catalogs([world.catalog], make_tokenizer(seed=5))


def test_a_catalog_of_codes_of_another_tokenizer_is_refused(world):
    for known in ({}, {"fingerprint": "another"}):
        catalog = ItemCatalog.from_codes(world.items, world.catalog.codes, codebook_size=8, **known)
        with pytest.raises(FingerprintMismatchError, match="catalog toys"):
            diagnose_catalogs({"toys": catalog}, world.tokenizer)
    catalog = ItemCatalog.from_codes(world.items, world.catalog.codes, codebook_size=8, tokenizer=world.tokenizer)
    assert severities(diagnose_catalogs([catalog], world.tokenizer), "catalog")["reconstruction"] == "not measured"


def test_each_semantic_id_is_decoded_once(world, monkeypatch):
    decoded = world.tokenizer.decode_items(world.catalog.codes)
    given, decode = [], world.tokenizer.decode_items
    monkeypatch.setattr(world.tokenizer, "decode_items", lambda codes: given.append(codes) or decode(codes))
    table = table_of_catalog(world.catalog, name="toys", tokenizer=world.tokenizer)
    np.testing.assert_allclose(table.decoded, decoded, rtol=1e-5, atol=1e-6)
    (codes,) = given
    assert len(codes) == len(np.unique(world.catalog.codes, axis=0)) < len(world.catalog)


def test_fitted_cosines_come_with_the_quantizer():
    import torch

    world = make_world()  # of its own, because the buffer is written to
    world.tokenizer.quantizer.fitted_cosines.copy_(torch.linspace(-1, 1, 101))
    diagnosis = diagnose_catalogs([world.catalog], world.tokenizer)
    assert severities(diagnosis, "catalog")["drift"] in ("ok", "warning", "fault")
    assert diagnosis.tables[0].reconstruction.drift is not None


# ---- what it leaves --------------------------------------------------------------------------------------------------


def test_json_gives_back_what_was_found(tmp_path):
    tables = [healthy(), with_codes(healthy("shoes", seed=1), slice(0, 60), [1, 2, 3, 4])]
    diagnosis = diagnose(tables, codebook_size=CODEBOOK, fitted_cosines=np.linspace(0, 1, 101))
    diagnosis.save_json(tmp_path / "doctor.json")
    content = json.loads((tmp_path / "doctor.json").read_text())
    assert content == diagnosis.to_dict()
    assert content["worst"] == "fault"
    assert [table["name"] for table in content["tables"]] == ["toys", "shoes"]
    assert content["tables"][1]["codes"]["largest_buckets"][0]["examples"][0]["item_id"] == "id-0"
    assert content["thresholds"]["collisions_fault"] == 0.1


def test_the_text_has_one_verdict_a_line_worst_first():
    diagnosis = diagnose([with_codes(healthy(), slice(0, 60), [1, 2, 3, 4])], codebook_size=CODEBOOK)
    verdicts, figures, levels = str(diagnosis).split("\n\n")
    lines = verdicts.splitlines()
    assert len(lines) == len(diagnosis.findings)
    assert lines[0].startswith("FAULT")
    assert lines[-1].startswith("OK")
    assert "--collisions reassign, or collisions='reassign'" in verdicts
    assert figures.splitlines()[1].startswith("toys")
    assert len(levels.splitlines()) == 1 + 4


def test_a_title_cannot_break_the_lines():
    table = with_codes(replace(healthy(), titles=["a\nb\x1b[31m"] * 400), slice(0, 60), [1, 2, 3, 4])
    diagnosis = diagnose([table], codebook_size=CODEBOOK)
    assert len(str(diagnosis).split("\n\n")[0].splitlines()) == len(diagnosis.findings)
    assert "\x1b" not in str(diagnosis)


def test_the_same_tables_give_the_same_diagnosis():
    first, second = (diagnose([healthy()], codebook_size=CODEBOOK).to_dict() for _ in range(2))
    assert first == second


def test_thresholds_decide():
    table = with_codes(healthy(), slice(0, 60), [1, 2, 3, 4])
    patient = Thresholds(collisions_warning=0.5, collisions_fault=0.9)
    assert found(table, "collisions", thresholds=patient)[0] == "ok"
    assert found(table, "collisions", thresholds=Thresholds(collisions_fault=0.2))[0] == "warning"
