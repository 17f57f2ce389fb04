"""`recbase init`: from two files to a folder whose configurations are ready for the next commands."""

from __future__ import annotations

import json

import pytest

from recbase_hf.cli import command_of, main
from recbase_hf.data.tables import read_interactions


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("customer_id;sku;date\n1;A1;2024-01-01\n1;A2;2024-01-02\n2;A1;2024-01-03\n")
    (tmp_path / "items.csv").write_text("sku;name\nA1;red shoe\nA2;blue shoe\n")
    return tmp_path


def test_the_folder_has_tables_and_configurations_that_their_commands_read(files, capsys):
    main(["init", "log.csv", "--items", "items.csv", "--output", "hats", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["tables"]["columns"] == {"user_id": "customer_id", "item_id": "sku", "timestamp": "date"}
    assert len(read_interactions(files / "hats" / "data")) == 3
    assert len(told["next"]) == 4
    for line in told["next"]:
        _, command, flag, path = line.split()
        options = command_of(command).parser().parse([flag, path])
        assert options.model == "recbase-mini"
        assert "hats/" in options.output if command != "doctor" else "hats/" in options.html


def test_a_folder_that_is_there_is_left_alone(files):
    (files / "hats").mkdir()
    with pytest.raises(SystemExit, match="hats is there already; name another --output, or delete it"):
        main(["init", "log.csv", "--items", "items.csv", "--output", "hats"])
    assert not list((files / "hats").iterdir())


def test_columns_may_be_named(files):
    (files / "log.csv").write_text("who;sku;customer_id\n1;A1;x\n2;A2;x\n")
    main(["init", "log.csv", "--items", "items.csv", "--output", "hats", "--user-id", "who"])
    assert set(read_interactions(files / "hats" / "data")["user_id"]) == {"1", "2"}
