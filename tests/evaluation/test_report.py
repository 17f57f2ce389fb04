"""The report says from receipts alone what was measured, what the bar is, what is zero-shot, and averages only like."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.small_receipts import RANKERS, evaluated, make_receipt, write_receipts
from recbase_hf.errors import DataError
from recbase_hf.evaluation.comparison import group_sets, read_sets
from recbase_hf.evaluation.figures import Figure
from recbase_hf.evaluation.report import render_html, render_markdown
from recbase_hf.evaluation.report_plot import plot_rankers
from recbase_hf.evaluation.report_tables import Table, difference_table, overview_table, set_table
from recbase_hf.evaluation.reproduction import EQUAL, INSIDE, NEAR, OUTSIDE, Comparison, compare

CALIBRATED = {**RANKERS, "RecBase calibrated": 0.69}
BAR = "text similarity: centered, log-sum-exp"


def texts_of(table: Table, ranker: str) -> dict[str, str]:
    """The texts of a row, by column."""
    (row,) = (row for row in table.rows if row.name == ranker)
    return dict(zip(table.columns, [cell.text for cell in row.cells], strict=True))


def notes_of(table: Table) -> dict[str, list[str]]:
    return {row.name: row.notes for row in table.rows if row.notes}


def one_group(*receipts):
    (group,) = group_sets(evaluated(*receipts))
    return group


# ---- one receipt -----------------------------------------------------------------------------------------------------


def test_a_row_has_its_figures_with_intervals_and_its_distance_to_the_bar():
    (each,) = evaluated(make_receipt())
    table = set_table(each, "gauc")
    assert texts_of(table, "RecBase catalog") == {
        **{"GAUC": "0.6800", "to the bar": "+0.0200", "AUC": "0.6900", "MRR": "0.7000", "NDCG@3": "0.7200"},
        **{"hit@1": "0.7300", "coverage@3": "0.2500", "seconds": "1.2"},
    }
    (row,) = (row for row in table.rows if row.name == "RecBase catalog")
    assert row.cells[0].small == "[0.6700, 0.6900]"
    assert [row.name for row in table.rows] == list(RANKERS)


def test_the_bar_the_best_zero_shot_row_and_what_was_fitted_on_the_set_are_marked():
    (each,) = evaluated(make_receipt())
    assert notes_of(set_table(each, "gauc")) == {
        "popularity (target set)": ["fitted on this set"],
        BAR: ["the bar"],
        "EASE (target set)": ["fitted on this set"],
        "RecBase catalog": ["best zero-shot"],
    }


def test_a_model_that_saw_the_set_is_not_zero_shot():
    (each,) = evaluated(make_receipt(model={"was_trained_on_this_data": True}))
    notes = notes_of(set_table(each, "gauc"))
    assert notes["RecBase joint"] == notes["RecBase catalog"] == ["NOT zero-shot: the model was trained on this set"]
    assert notes[BAR] == ["the bar", "best zero-shot"]


def test_only_the_calibrated_row_is_spoiled_by_a_calibration_that_saw_the_set():
    fitted_on = {"toys": "h-toys"}
    (each,) = evaluated(make_receipt(gauc=CALIBRATED, model={"calibration": {"alpha": 0.3, "fitted_on": fitted_on}}))
    assert each.objection("RecBase calibrated") == "NOT zero-shot: calibrated on this set"
    assert each.objection("RecBase catalog") is None
    assert each.best_zero_shot("gauc") == "RecBase catalog"


def test_a_calibration_on_other_sets_spoils_nothing():
    (each,) = evaluated(make_receipt(gauc=CALIBRATED, model={"calibration": {"fitted_on": {"films": "h-films"}}}))
    assert each.best_zero_shot("gauc") == "RecBase calibrated"


def test_of_a_loss_less_is_better():
    receipt = make_receipt()
    for row, loss in zip(receipt["rankers"], (2.0, 1.9, 1.5, 1.4, 1.45, 1.0, 1.3, 1.6), strict=True):
        row["metrics"]["log_loss"] = {"value": loss, "low": None, "high": None}
    (each,) = evaluated(receipt)
    assert each.bar("log_loss") == BAR
    assert each.best_zero_shot("log_loss") == "RecBase joint"
    group = one_group(receipt, make_receipt("books"))
    assert texts_of(difference_table(group, "log_loss"), "RecBase joint")["better than the bar"] == "1 of 1"


def test_a_figure_that_does_not_exist_is_no_best_one():
    (each,) = evaluated(make_receipt(gauc={"random": None, "text similarity: mean": None, "RecBase joint": 0.6}))
    assert each.bar("gauc") is None
    table = set_table(each, "gauc")
    assert texts_of(table, "random")["GAUC"] == "–"
    assert texts_of(table, "RecBase joint")["to the bar"] == "–"
    assert "0.6000" in render_markdown([each])


def test_circumstances_are_told_without_the_folder_of_the_receipt():
    (each,) = evaluated(make_receipt())
    text = render_markdown([type(each)("/home/me/secret/toys.json", each.receipt)])
    for part in ("h-toys", "seed: 0", "torch 2.9.0", "processor abacus", "--model mini --data toys", "seconds: 12.3"):
        assert part in text
    assert "toys.json" in text
    assert "secret" not in text


# ---- several receipts ------------------------------------------------------------------------------------------------


def test_data_sets_stand_side_by_side_with_their_means():
    table = overview_table(one_group(make_receipt("toys"), make_receipt("books", lift=0.1)), "gauc")
    assert texts_of(table, "RecBase catalog") == {"mean of 2": "0.7300", "toys": "0.6800", "books": "0.7800"}
    assert texts_of(table, "random") == {"mean of 2": "0.5000", "toys": "0.5000", "books": "0.5000"}


def test_the_difference_is_to_the_bar_of_each_set():
    other_bar = {**RANKERS, "text similarity: mean": 0.71}
    table = difference_table(one_group(make_receipt("toys"), make_receipt("books", gauc=other_bar)), "gauc")
    assert [cell.small for cell in table.rows[0].cells] == ["", "", "centered, log-sum-exp", "mean"]
    assert texts_of(table, "the bar")["mean of 2"] == "0.6850"
    assert texts_of(table, "RecBase catalog") == {
        **{"mean of 2": "-0.0050", "better than the bar": "1 of 2", "toys": "+0.0200", "books": "-0.0300"}
    }


def test_means_without_the_sets_that_the_model_saw_are_told_apart():
    sets = make_receipt("toys"), make_receipt("books"), make_receipt("films", model={"was_trained_on_this_data": True})
    table = overview_table(one_group(*sets), "gauc")
    assert table.columns[:2] == ["mean of 3", "mean of the 2 unseen"]
    assert texts_of(table, "RecBase joint")["mean of 3"] == "0.6500 †"
    assert texts_of(table, "RecBase joint")["films"] == "0.6500 †"
    assert texts_of(table, "RecBase joint")["mean of the 2 unseen"] == "0.6500"
    assert texts_of(table, "EASE (target set)")["mean of 3"] == "0.8000"
    assert "† NOT zero-shot" in render_markdown(evaluated(*sets))


def test_there_is_no_mean_where_a_set_lacks_the_ranker():
    without = {name: value for name, value in RANKERS.items() if name != "RecBase joint"}
    group = one_group(make_receipt("toys"), make_receipt("books", gauc=without))
    assert texts_of(overview_table(group, "gauc"), "RecBase joint") == {
        **{"mean of 2": "–", "toys": "0.6500", "books": "–"}
    }
    gaps = texts_of(difference_table(group, "gauc"), "RecBase joint")
    assert (gaps["mean of 2"], gaps["better than the bar"]) == ("–", "0 of 1")


@pytest.mark.parametrize(
    "other",
    [
        make_receipt("books", protocol={"name": "RecGPT"}),
        make_receipt("books", protocol={"seed": 1}),
        make_receipt("books", protocol={"num_candidates": 20}),
        make_receipt("books", model={"weights": "w2"}),
        make_receipt("books", gauc={"random": 0.5, "text similarity: mean": 0.6}),
    ],
    ids=["protocol", "seed", "switch", "model", "no model"],
)
def test_what_is_not_alike_is_never_averaged(other):
    groups = group_sets(evaluated(make_receipt("toys"), other))
    assert [each.name for group in groups for each in group.sets] == ["toys", "books"]
    assert len({group.title for group in groups}) == 2
    assert "mean of" not in render_markdown(evaluated(make_receipt("toys"), other))


def test_counts_and_the_rules_of_a_data_set_do_not_make_another_protocol():
    recbench = {"name": "RecBench", "seed": 2024, "rows": 20000, "unknown_items": 0}
    one_group(
        make_receipt("toys", protocol={**recbench, "data_set": "CDs", "kind": "rated", "positives": 2}),
        make_receipt("books", protocol={**recbench, "data_set": "POG", "kind": "implicit", "positives": 1}),
    )
    assert len(group_sets(evaluated(make_receipt("a"), make_receipt("b", protocol={"users_too_short": 7})))) == 1


def test_a_switch_that_tells_groups_apart_is_in_their_titles():
    groups = group_sets(evaluated(make_receipt("toys"), make_receipt("books", protocol={"num_candidates": 20})))
    assert [group.title for group in groups] == [
        "leave-last-out, seed 0, num_candidates 5, model mini (weights w1)",
        "leave-last-out, seed 0, num_candidates 20, model mini (weights w1)",
    ]


def test_one_set_twice_is_an_error_that_says_what_differs():
    twice = make_receipt("toys"), make_receipt("toys", max_history=50, output="elsewhere.json")
    with pytest.raises(DataError, match=r"0.json and 1.json are both of toys .* differ in max_history \(20, 50\)"):
        group_sets(evaluated(*twice))
    with pytest.raises(DataError, match=r"differ in model .*w1.*w2"):
        group_sets(evaluated(make_receipt(), make_receipt(model={"weights": "w2"})))
    with pytest.raises(DataError, match="rerun of the other"):
        group_sets(evaluated(make_receipt(), make_receipt(lift=0.1)))
    assert len(group_sets(evaluated(make_receipt(), make_receipt(protocol={"seed": 1}, seed=1)))) == 2


def test_different_sets_of_one_name_are_told_apart_by_their_hash():
    other = make_receipt("toys")
    other["dataset"]["hash"] = "another"
    assert one_group(make_receipt("toys"), other).labels() == ["toys (h-toys)", "toys (another)"]


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_folders_and_files_are_read_each_once(tmp_path):
    folder = write_receipts(tmp_path / "receipts", make_receipt("toys"), make_receipt("books"))
    write_receipts(folder / "deeper", make_receipt("films"))
    sets = read_sets([folder / "1-books.json", folder])
    assert [each.name for each in sets] == ["books", "toys"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a receipt"),
        ('{"format_version": 3, "rankers": []}', "newer recbase-hf"),
        ('{"format_version": 2, "rankers": []}', "is not a receipt: dataset, protocol, .* missing"),
        ("{", "not valid JSON"),
    ],
)
def test_what_is_not_a_receipt_is_named(tmp_path, content, message):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(ValueError, match=f"other.json .*{message}|{message}"):
        read_sets([tmp_path])


def test_missing_files_empty_folders_and_unknown_metrics_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no receipt .*nothing.json"):
        read_sets([tmp_path / "nothing.json"])
    with pytest.raises(DataError, match="holds no receipts"):
        read_sets([tmp_path])
    with pytest.raises(ValueError, match=r"0.json has no metric 'ndcg@7'; it has gauc, auc"):
        render_markdown(evaluated(make_receipt()), "ndcg@7")


# ---- the two renderings ----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags, attributes and visible text of a page; open tags must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


EVIL = '<script>alert("1")</script>|\'"\n# <img src=x onerror=alert(1)>'


def test_the_page_has_a_plot_a_set_and_needs_nothing_from_elsewhere():
    page = Page(render_html(evaluated(make_receipt("toys"), make_receipt("books"))))
    assert page.tags.count("svg") == 2
    for words in ("GAUC by data set", "difference to the bar", "best zero-shot", "+0.0200", "h-books", "torch 2.9.0"):
        assert words in page.text
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "srcset", "data"} & {name for name, _ in page.attributes}
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_names_are_escaped_in_the_page():
    page = Page(render_html(evaluated(make_receipt(EVIL, gauc={**RANKERS, EVIL: 0.5}), make_receipt("books"))))
    assert EVIL in page.text
    assert not {"script", "img"} & set(page.tags)
    assert "onerror" not in {name for name, _ in page.attributes}


def test_names_break_no_line_of_the_markdown():
    text = render_markdown(evaluated(make_receipt(EVIL, gauc={**RANKERS, EVIL: 0.5}), make_receipt("books")))
    assert not [line for line in text.splitlines() if line.startswith(("# <img", "<script"))]
    assert " <script" not in text
    tables = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert all(len(line) > 2 and line.endswith("|") for line in tables)


def test_every_row_of_a_table_has_the_same_width_in_plain_text():
    lines = render_markdown(evaluated(make_receipt("toys"), make_receipt("books"))).splitlines()
    tables = "\n".join(line if line.startswith("|") else "" for line in lines).split("\n\n")
    assert all(len({len(line) for line in table.split("\n") if line}) <= 1 for table in tables)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), max_size=4), st.floats(0, 1))
def test_any_figures_are_drawn(values, width):
    receipt = make_receipt(gauc=dict(zip(["text similarity: mean", "random", "b", "c"], values, strict=False)))
    for row in receipt["rankers"]:
        value = row["metrics"]["gauc"]["value"]
        row["metrics"]["gauc"] = {"value": value, "low": value - width, "high": value + width}
    plot = plot_rankers(*evaluated(receipt), "gauc")
    assert len(plot.bars) == len(receipt["rankers"])
    for bar in plot.bars:
        assert 0 <= bar.x <= plot.width
        assert 0 <= bar.y <= plot.height


def test_a_report_loads_no_model_library(tmp_path):
    write_receipts(tmp_path, make_receipt())
    code = f"from recbase_hf.cli import main; import sys; main(['report', {str(tmp_path)!r}]); "
    code += "sys.exit(' '.join({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "\n")


# ---- reruns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (Figure(0.5, 0.4, 0.6), 0.5, EQUAL),
        (Figure(0.5, 0.4, 0.6), 0.5 + 1e-13, EQUAL),
        (Figure(0.5, 0.4, 0.6), 0.59, INSIDE),
        (Figure(0.5, 0.4, 0.6), 0.61, OUTSIDE),
        (Figure(0.25), 0.251, NEAR),
        (Figure(0.25), 0.26, OUTSIDE),
        (None, None, EQUAL),
        (None, 0.5, OUTSIDE),
        (Figure(0.5, 0.4, 0.6), None, OUTSIDE),
    ],
)
def test_verdicts_on_a_figure_of_a_rerun(before, after, verdict):
    assert Comparison("random", "gauc", before, after).verdict == verdict


def test_every_figure_of_the_receipt_is_compared_also_those_that_are_gone():
    before, after = make_receipt(), make_receipt()
    assert {each.verdict for each in compare(before, after)} == {EQUAL}
    assert len(compare(before, after)) == sum(len(row["metrics"]) for row in before["rankers"])
    del after["rankers"][0]
    assert {each.ranker for each in compare(before, after) if each.verdict == OUTSIDE} == {"random"}
    assert not [each for each in compare(after, before) if each.ranker == "random"]
