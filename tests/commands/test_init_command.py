"""`recbase init`: from two files to a folder whose configurations are ready for the next commands."""

from __future__ import annotations

import json
import shlex

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
    main(["init", "log.csv", "--items", "items.csv", "--output", "my hats", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["tables"]["name"] == "my hats"
    assert told["columns"] == {"user_id": "customer_id", "item_id": "sku", "timestamp": "date"}
    assert len(read_interactions(files / "my hats")) == 3
    assert len(told["next"]) == 4
    for line in told["next"]:
        _, command, flag, path = shlex.split(line)
        options = command_of(command).parser().parse([flag, path])
        assert options.model == "recbase-mini"
        assert "my hats/" in options.output if command != "doctor" else "my hats/" in options.html


def test_a_folder_that_is_there_is_left_alone(files):
    (files / "hats").mkdir()
    with pytest.raises(SystemExit, match="hats is there already; name another --output, or delete it"):
        main(["init", "log.csv", "--items", "items.csv", "--output", "hats"])
    assert not list((files / "hats").iterdir())


def test_columns_may_be_named(files):
    (files / "log.csv").write_text("who;sku;customer_id\n1;A1;x\n2;A2;x\n")
    main(["init", "log.csv", "--items", "items.csv", "--output", "hats", "--user-id", "who"])
    assert set(read_interactions(files / "hats")["user_id"]) == {"1", "2"}


def test_after_an_error_the_corrected_command_works(files):
    good = (files / "log.csv").read_text()
    (files / "log.csv").write_text(good.replace("2024-01-02", "01/02/2024"))
    command = ["init", "log.csv", "--items", "items.csv", "--output", "hats"]
    with pytest.raises(SystemExit, match=r"log\.csv, column 'date', row 2: '01/02/2024' is no time"):
        main(command)
    assert not (files / "hats").exists()
    (files / "log.csv").write_text(good)
    main(command)
    assert (files / "hats" / "evaluate.yaml").exists()


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        ("customer_id,sku,date\n", "log.csv and items.csv: there are no interactions; is there more than a header"),
        (
            "customer_id,sku,date\n1,A1,20240131\n",
            "row 1: 2.02401e.07 as seconds since 1970 is before 1973; .*--timestamp",
        ),
        ("customer_id,sku,date\n1,A1,2024-01-31,x\n", "log.csv: line 2: 4 cells where there are 3 columns"),
    ],
)
def test_what_is_wrong_with_a_log_is_said_with_its_name(files, log, complaint):
    (files / "log.csv").write_text(log)
    with pytest.raises(SystemExit, match=complaint):
        main(["init", "log.csv", "--items", "items.csv", "--output", "hats"])
