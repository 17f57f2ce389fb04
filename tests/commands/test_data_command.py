"""`recbase data`: list, prepare, from-csv, check."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from recbase_hf.cli import main

LOG = 'buyer;sku;name;when\n7;001;Chess;2024-01-02\n7;002;"Poker; deluxe";2024-01-03\n8;003;Go;2024-01-04\n'


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def from_csv(log, out, *more: str) -> None:
    names = ["--user-id", "buyer", "--item-id", "sku", "--timestamp", "when", "--delimiter", ";"]
    main(["data", "from-csv", "--log", str(log), "--out", str(out), *names, *more])


def test_a_log_becomes_two_tables_that_pass_the_check(log, tmp_path, capsys):
    out = tmp_path / "shop"
    from_csv(log, out, "--texts", "name")
    assert pq.read_table(out / "items.parquet").to_pylist()[1] == {"item_id": "002", "name": "Poker; deluxe"}
    events = pq.read_table(out / "interactions.parquet").to_pylist()
    assert [(row["user_id"], row["item_id"]) for row in events] == [("7", "001"), ("7", "002"), ("8", "003")]
    main(["data", "check", str(out)])
    assert "fit for training and evaluation" in capsys.readouterr().out


def test_items_may_have_a_file_of_their_own_and_unknown_ones_are_counted(log, tmp_path, capsys):
    items = tmp_path / "products.csv"
    items.write_text("id;title;brand\n001;Chess;X\n002;Poker;Y\n")
    from_csv(log, tmp_path / "shop", "--items", str(items), "--items-id", "id")
    assert "left out: 1 interactions of items without a row" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "shop/items.parquet").column_names == ["item_id", "title", "brand"]
    with pytest.raises(SystemExit, match="such as 003"):
        from_csv(log, tmp_path / "other", "--items", str(items), "--items-id", "id", "--unknown-items", "error")
    assert not (tmp_path / "other").exists()


def test_wrong_names_delimiters_and_folders_are_said(log, tmp_path):
    with pytest.raises(SystemExit, match="no column 'title'; the columns are"):
        from_csv(log, tmp_path / "shop", "--texts", "title")
    with pytest.raises(SystemExit, match="is the delimiter right"):
        from_csv(log, tmp_path / "shop", "--texts", "name", "--delimiter", ",")
    nameless = log.with_name("nameless.csv")
    nameless.write_text(LOG.replace("name", "what"))
    with pytest.raises(SystemExit, match="which columns are the texts of the items"):
        from_csv(nameless, tmp_path / "shop")
    from_csv(log, tmp_path / "shop", "--texts", "name")
    with pytest.raises(SystemExit, match="holds a data set already"):
        from_csv(log, tmp_path / "shop", "--texts", "name")
    with pytest.raises(SystemExit, match="there is no data set 'moovielens'"):
        main(["data", "prepare", "moovielens", "--raw", str(tmp_path), "--out", str(tmp_path / "x")])


def test_columns_are_recognized_by_their_names_and_said(log, tmp_path, capsys):
    main(["data", "from-csv", str(log), "--out", str(tmp_path / "shop")])
    assert "user_id is 'buyer', item_id is 'sku', timestamp is 'when'" in capsys.readouterr().out
    assert json.loads((tmp_path / "shop" / "dataset.json").read_text())["name"] == "shop"
    from_csv(log, tmp_path / "named", "--texts", "name")
    for table in ("items.parquet", "interactions.parquet"):
        assert pq.read_table(tmp_path / "shop" / table).equals(pq.read_table(tmp_path / "named" / table))


def test_files_that_do_not_match_are_refused_with_examples(log, tmp_path):
    items = tmp_path / "products.csv"
    items.write_text("id;title\nA1;Chess\n")
    with pytest.raises(SystemExit, match=r"none of the 3 .* they have '001', '002', '003', the item table has 'A1'"):
        main(["data", "from-csv", str(log), "--items", str(items), "--out", str(tmp_path / "shop")])
    assert not (tmp_path / "shop").exists()


def test_the_check_fails_on_errors(tmp_path, capsys):
    (tmp_path / "items.csv").write_text("item_id,title\na,Chess\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nann,b\n")
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", str(tmp_path)])
    assert stopped.value.code == 1
    assert "item 'b' is not in the item table" in capsys.readouterr().out


def test_the_list_says_where_each_data_set_comes_from(capsys):
    main(["data", "list"])
    assert "movielens-1m" in capsys.readouterr().out
    main(["data", "list", "--names", "movielens-1m"])
    printed = capsys.readouterr().out
    assert "ratings.dat" in printed
    assert "https://grouplens.org" in printed


@pytest.mark.parametrize(
    ("scale", "unit"), [(1, "seconds"), (10**3, "milliseconds"), (10**6, "micro"), (10**9, "nano")]
)
def test_times_of_any_unit_become_seconds_and_a_mixture_is_refused(tmp_path, scale, unit):
    log = tmp_path / "log.csv"
    rows = [f"u,{item},Thing {item},{(1_600_000_000 + item) * scale}" for item in range(3)]
    log.write_text("\n".join(["buyer,sku,name,when", *rows]) + "\n")
    from_csv(log, tmp_path / "shop", "--texts", "name", "--delimiter", ",")
    times = pq.read_table(tmp_path / "shop" / "interactions.parquet")["timestamp"].to_pylist()
    assert times == [1_600_000_000, 1_600_000_001, 1_600_000_002], unit
    log.write_text("\n".join(["buyer,sku,name,when", *rows, f"u,9,Thing 9,{1_600_000_009 * scale * 1000}"]) + "\n")
    if scale < 10**9:
        with pytest.raises(SystemExit, match=r"row 4: .* since 1970; are there two sources in one file"):
            from_csv(log, tmp_path / "mixed", "--texts", "name", "--delimiter", ",")
