"""`recbase score` writes what the library scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf import ItemCatalog, RecBaseScorer, cli
from training.conftest import forget_accelerate


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """A folder with model, catalog and a table of pairs."""
    folder = tmp_path_factory.mktemp("made")
    RecBaseScorer(world.model, world.tokenizer).save_pretrained(folder / "model")
    world.catalog.save_pretrained(folder / "catalog")
    pairs = {"user_id": [7, 8], "history": [["item-1", "item-2"], []], "candidates": [["item-3", "item-0"], ["item-9"]]}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    return folder


def recbase_score(made, output, *more: str) -> None:
    forget_accelerate()
    flags = ["--model", made / "model", "--catalog", made / "catalog", "--table", made / "pairs.parquet"]
    cli.main(["score", *map(str, flags), "--output", str(output), *more])
    forget_accelerate()


def test_the_command_writes_the_scores_of_the_library(made, tmp_path):
    recbase_score(made, tmp_path / "scores", "--method", "joint", "--alpha", "0.5", "--rows-per-part", "1")
    (row, other) = pq.read_table(tmp_path / "scores" / "scores-00000-of-00001.parquet").to_pylist()
    scorer = RecBaseScorer.from_pretrained(made / "model")
    catalog = ItemCatalog.from_pretrained(made / "catalog")
    expected = scorer.score(["item-1", "item-2"], ["item-3", "item-0"], catalog=catalog, method="joint", alpha=0.5)
    assert (row["user_id"], other["user_id"]) == (7, 8)
    np.testing.assert_allclose(row["scores"], expected, rtol=1e-5, atol=1e-5)


def test_other_options_on_the_same_output_end_in_one_line(made, tmp_path):
    recbase_score(made, tmp_path)
    recbase_score(made, tmp_path)
    with pytest.raises(SystemExit, match=r"recbase score: .*\(method: catalog, now joint\); name another output"):
        recbase_score(made, tmp_path, "--method", "joint")
