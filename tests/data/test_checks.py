"""What is wrong with somebody's own tables is said with place and fix, and what is right is let through."""

from __future__ import annotations

import pytest

from recbase_hf.data.checks import check_tables

ITEMS = "item_id,title\na,Chess\nb,Poker\n"


def findings(folder, interactions: str, items: str = ITEMS) -> list[tuple[str, str]]:
    (folder / "items.csv").write_text(items)
    (folder / "interactions.csv").write_text(interactions)
    return [(finding.level, finding.message) for finding in check_tables(folder)]


def test_good_tables_have_no_findings(tmp_path):
    assert findings(tmp_path, "user_id,item_id,timestamp,label\nann,a,10,1\nann,b,20,0\n") == []


@pytest.mark.parametrize(
    ("interactions", "level", "said"),
    [
        ("user_id,item_id,order\nann,a,0\nann,c,1\n", "error", "row 2: item 'c' is not in the item table"),
        ("user_id,item_id,timestamp\nann,a,-5\nann,b,1\n", "error", "row 1, column 'timestamp': -5 is before 1970"),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,1700000000000\n", "error", "row 2.*looks like milliseconds"),
        ("user_id,item_id,timestamp\nann,a,1600000000000\nann,b,1700000000000\n", "note", "only their order is used"),
        ("user_id,item_id,timestamp\nann,a,5\nann,b,\n", "warning", "1 of 2 interactions have no timestamp"),
        ("user_id,item_id,order\nann,a,0\nann,a,0\nann,b,1\n", "warning", "1 of 3 interactions repeat another one"),
        ("user_id,item_id\nann,a\nann,b\n", "note", "the order of the rows counts"),
        ("user_id,item_id,order\nann,a,0\n", "note", "1 of 2 items have no interaction"),
        ("user_id,item_id,order\nann,a,0\nbob,b,0\n", "note", "2 of 2 users have a single interaction"),
        ("user_id,item_id,order,label\nann,a,0,0\nann,b,1,0\n", "error", "no interaction has the label 1"),
        ("user_id,item_id,timestamp\nann,a,soon\n", "error", "'soon' is not a number"),
        ("user_id;item_id\nann;a\n", "error", "separated otherwise"),
    ],
)
def test_a_finding_has_place_and_fix(tmp_path, interactions, level, said):
    import re

    found = findings(tmp_path, interactions)
    assert any(kind == level and re.search(said, message) for kind, message in found), found


def test_labels_that_are_all_empty_count_as_liked(tmp_path):
    assert not findings(tmp_path, "user_id,item_id,order,label\nann,a,0,\nann,b,1,\n")
