"""Each adapter reads a small file in the published format, and refuses what is not."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbase_hf.data.histories import build_histories
from recbase_hf.data.prepare.prepared import prepare
from recbase_hf.data.prepare.registry import published_data
from recbase_hf.errors import DataError

Rows = list[dict[str, Any]]
MORNING = 1573808122  # 2019-11-15 08:55:22


class World:
    """Raw files, and what comes out of them."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.out = folder / "raw", folder / "out"
        self.raw.mkdir()

    def text(self, name: str, *lines: str) -> World:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self

    def parquet(self, name: str, **columns: Any) -> World:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        return self

    def prepare(self, name: str) -> World:
        self.facts = prepare(published_data(name), self.raw, self.out)
        return self

    def rows(self, table: str) -> Rows:
        rows: Rows = pq.read_table(self.out / f"{table}.parquet").to_pylist()
        return rows

    def tuples(self, table: str, *columns: str) -> list[tuple[Any, ...]]:
        return [tuple(row[column] for column in columns) for row in self.rows(table)]

    def histories(self) -> dict[str, list[str]]:
        items = [row["item_id"] for row in self.rows("items")]
        histories = build_histories(str(self.out), items)
        return {user: [items[i] for i in histories[u]] for u, user in enumerate(histories.users)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


NEWS = [
    'N1\tsports\tgolf\tThe "Open\tA year\thttps://x\t[]\t[]',
    "N2\tnews\tworld\tElections\t\thttps://x\t[]\t[]",
    "N3\tnews\tworld\tMore\tB\thttps://x\t[]\t[]",
]
BEHAVIORS = [
    "1\tU1\t11/15/2019 8:55:22 AM\tN2 N1\tN3-1 N1-0",
    "2\tU2\t11/11/2019 12:00:00 PM\t\tN1-1",
    "3\tU1\t11/15/2019 8:55:23 AM\tN2 N1\tN2-0",
]


def test_mind(world: World) -> None:
    world.text("MINDsmall_train/news.tsv", *NEWS).text("MINDsmall_train/behaviors.tsv", *BEHAVIORS).prepare("mind")
    assert world.rows("items")[0] == {
        "item_id": "N1",
        "title": 'The "Open',
        "abstract": "A year",
        "category": "sports",
        "subcategory": "golf",
    }
    assert world.rows("items")[1]["abstract"] is None
    assert world.tuples("interactions", "user_id", "item_id", "timestamp", "order", "label") == [
        ("U1", "N2", None, -2, 1),
        ("U1", "N1", None, -1, 1),
        ("U1", "N3", MORNING, MORNING, 1),
        ("U2", "N1", 1573473600, 1573473600, 1),
    ]
    assert world.tuples("impressions", "user_id", "history", "candidates", "labels", "timestamp") == [
        ("U1", ["N2", "N1"], ["N3", "N1"], [1, 0], MORNING),
        ("U2", [], ["N1"], [1], 1573473600),
        ("U1", ["N2", "N1"], ["N2"], [0], MORNING + 1),
    ]
    assert world.histories() == {"U1": ["N2", "N1", "N3"], "U2": ["N1"]}


def test_mind_reads_several_splits_but_none_twice(world: World) -> None:
    for split in ("train", "dev"):
        world.text(f"MINDsmall_{split}/news.tsv", *NEWS).text(f"MINDsmall_{split}/behaviors.tsv", *BEHAVIORS)
    world.prepare("mind")
    assert world.facts["rows"] == {"items": 3, "interactions": 6, "impressions": 6}
    with zipfile.ZipFile(world.raw / "MINDsmall_dev.zip", "w") as archive:
        archive.writestr("news.tsv", NEWS[0])
    world.out = world.out.parent / "again"
    with pytest.raises(DataError, match=r"MINDsmall_dev.*leave one"):
        world.prepare("mind")


@pytest.mark.parametrize(
    ("behavior", "message"),
    [
        ("1\tU1\t11/15/2019 8:55:22 AM\tN1\tN3 N1", "behaviors.tsv, row 2: 'N3' .*test split"),
        ("1\tU1\t11/15/2019 8:55:22 AM\tN1\tN3-2", "'N3-2' is not an item and its label"),
        ("1\tU1\t2019-11-15 08:55\tN1\tN3-1", "column 'time': '2019-11-15 08:55' is not a time"),
        ("1,U1,11/15/2019 8:55:22 AM,N1,N3-1", "behaviors.tsv is not in the published format"),
    ],
)
def test_bad_impressions_are_refused(world: World, behavior: str, message: str) -> None:
    world.text("news.tsv", *NEWS).text("behaviors.tsv", BEHAVIORS[0], behavior)
    with pytest.raises(DataError, match=message):
        world.prepare("mind")


def test_a_folder_of_another_data_set_is_refused(world: World) -> None:
    world.text("ratings.csv", "userId,movieId,rating,timestamp")
    with pytest.raises(FileNotFoundError, match="another data set, or of another version"):
        world.prepare("mind")


PENS_HEADER = "UserID\tClicknewsID\tdwelltime\texposure_time\tpos\tneg\tstart\tend\tdwelltime_pos"


def test_pens(world: World) -> None:
    news = "News ID\tCategory\tTopic\tHeadline\tNews body\tTitle entity\tEntity content"
    world.text("news.tsv", news, "N1\tsports\tsoccer\tWon\tFive!\t{}\t{}", 'N2\tnews\t\t"Say ""two"""\t"A" b\t{}\t{}')
    world.text(
        "train.tsv",
        PENS_HEADER,
        "U1\tN1\t9\t6/19/2019 5:10:01 AM\tN2\tN1 N9\t7/3/2019 6:43:49 AM\t7/3/2019 7:06:06 AM\t34",
    )
    world.text("valid.tsv", PENS_HEADER, "U2\t\t\t\tN1\t\t7/3/2019 6:43:49 AM\t7/3/2019 7:06:06 AM\t1")
    world.prepare("pens")
    assert world.rows("items")[0] == {
        "item_id": "N1",
        "title": "Won",
        "body": "Five!",
        "category": "sports",
        "topic": "soccer",
    }
    assert world.tuples("items", "title", "body")[1] == ('Say "two"', '"A" b')
    assert world.tuples("impressions", "user_id", "history", "candidates", "labels", "timestamp") == [
        ("U1", ["N1"], ["N2", "N1"], [1, 0], 1562136229),
        ("U2", [], ["N1"], [1], 1562136229),
    ]
    assert world.histories() == {"U1": ["N1", "N2"], "U2": ["N1"]}


def test_pens_without_a_column_is_refused(world: World) -> None:
    world.text("news.tsv", "News ID\tCategory\tTopic\tTitle\tNews body", "N1\ta\tb\tc\td")
    world.text("train.tsv", PENS_HEADER).text("valid.tsv", PENS_HEADER)
    with pytest.raises(DataError, match=r"news\.tsv is not in the published format.*Headline"):
        world.prepare("pens")


def ebnerd(world: World, **behaviors: Any) -> World:
    first, second = datetime(2023, 5, 1), datetime(2023, 5, 2)
    world.parquet(
        "ebnerd_demo/articles.parquet",
        article_id=pa.array([7, 8], pa.int32()),
        title=["Et", "To"],
        subtitle=["", "b"],
        body=["c", None],
        category_str=["sport", "krimi"],
        topics=[["Fodbold", "Kendt"], []],
    )
    world.parquet(
        "ebnerd_demo/train/history.parquet",
        user_id=pa.array([5, 6], pa.uint32()),
        article_id_fixed=pa.array([[8, 7] * 60, [7]], pa.list_(pa.int32())),
        impression_time_fixed=pa.array([[first] * 120, [second]], pa.list_(pa.timestamp("us"))),
    )
    columns: dict[str, Any] = {
        "user_id": pa.array([6, 5], pa.uint32()),
        "impression_time": pa.array([datetime(2023, 5, 21, 21, 6, 50)] * 2, pa.timestamp("us")),
        "article_ids_inview": pa.array([[7, 8], [8]], pa.list_(pa.int32())),
        "article_ids_clicked": pa.array([[8], []], pa.list_(pa.int32())),
    }
    return world.parquet("ebnerd_demo/train/behaviors.parquet", **{**columns, **behaviors})


def test_ebnerd(world: World) -> None:
    ebnerd(world).prepare("ebnerd")
    assert world.rows("items")[0] == {
        "item_id": "7",
        "title": "Et",
        "subtitle": "",
        "body": "c",
        "category": "sport",
        "topics": "Fodbold, Kendt",
    }
    assert world.rows("items")[1]["topics"] is None
    events = world.tuples("interactions", "user_id", "item_id", "timestamp", "label")
    assert events[:2] == [("5", "8", 1682899200, 1), ("5", "7", 1682899200, 1)]
    assert events[120:] == [("6", "7", 1682985600, 1), ("6", "8", 1684703210, 1)]
    assert world.tuples("impressions", "user_id", "history", "candidates", "labels") == [
        ("6", ["7"], ["7", "8"], [0, 1]),
        ("5", ["8", "7"] * 50, ["8"], [0]),
    ]


def test_ebnerd_wants_both_files_of_a_split(world: World) -> None:
    ebnerd(world).parquet("ebnerd_demo/validation/behaviors.parquet", user_id=[1])
    with pytest.raises(DataError, match="each split needs both"):
        world.prepare("ebnerd")


def test_ebnerd_without_clicks_is_refused(world: World) -> None:
    ebnerd(world).parquet(
        "ebnerd_demo/train/behaviors.parquet", user_id=[5], impression_time=[1], article_ids_inview=[[7]]
    )
    with pytest.raises(DataError, match="no column 'article_ids_clicked'"):
        world.prepare("ebnerd")


def test_microlens(world: World) -> None:
    world.text("MicroLens-50k_titles.csv", "item,title", '1,"Cats, ""and"" dogs"', "2,")
    world.text("MicroLens-50k_pairs.csv", "user,item,timestamp", "36,2,1583378629552", "36,1,1583378629552")
    world.prepare("microlens-50k")
    assert world.rows("items") == [
        {"item_id": "1", "title": 'Cats, "and" dogs'},
        {"item_id": "2", "title": None},
    ]
    assert world.rows("interactions") == [
        {"user_id": "36", "item_id": "2", "timestamp": 1583378629},
        {"user_id": "36", "item_id": "1", "timestamp": 1583378629},
    ]


def test_microlens_titles_without_header_and_quotes(world: World) -> None:
    world.text("MicroLens-100k_title_en.csv", "1,Cats, and dogs", "2,Two")
    world.text("MicroLens-100k_pairs.csv", "user,item,timestamp", "36,2,1583378629552").prepare("microlens-100k")
    assert world.tuples("items", "item_id", "title") == [("1", "Cats, and dogs"), ("2", "Two")]


def test_microlens_of_another_size_or_delimiter_is_refused(world: World) -> None:
    world.text("MicroLens-50k_titles.csv", "item,title", "1,x")
    world.text("MicroLens-50k_pairs.csv", "36\t1\t1583378629552")
    with pytest.raises(FileNotFoundError, match="MicroLens-100k"):
        world.prepare("microlens-100k")
    with pytest.raises(DataError, match=r"_pairs\.csv is not in the published format"):
        world.prepare("microlens-50k")
    world.text("MicroLens-50k_titles.csv", "item,title", "1\tx")
    with pytest.raises(DataError, match=r"row 2: .* is not the number of a video and a title"):
        world.prepare("microlens-50k")


def test_ninerec_sequences(world: World) -> None:
    world.text("QB/QB_item.csv", 'v17551,韩国电影，《女教师》,"Korean Movie, The Governess"', "v2,二,Two")
    world.text("QB/QB_behaviour.tsv", "u14500\tv2 v17551", "u3\tv2").prepare("ninerec-qb")
    assert world.rows("items")[0] == {
        "item_id": "v17551",
        "title": "韩国电影，《女教师》",
        "title_en": "Korean Movie, The Governess",
    }
    assert world.tuples("interactions", "user_id", "item_id", "order") == [
        ("u14500", "v2", 0),
        ("u14500", "v17551", 1),
        ("u3", "v2", 0),
    ]


@pytest.mark.parametrize("lines", [("1,9,100", "2,9,200"), ("9,1,100", "9,2,200")])
def test_ninerec_pairs_in_either_order(world: World, lines: tuple[str, ...]) -> None:
    world.text("KU_item.csv", "1,一,One", "2,二,Two").text("KU_pair.csv", *lines).prepare("ninerec-ku")
    assert world.tuples("interactions", "user_id", "item_id", "timestamp") == [("9", "1", 100), ("9", "2", 200)]


def test_ninerec_pairs_of_another_part_are_refused(world: World) -> None:
    world.text("KU_item.csv", "1,一,One").text("KU_pair.csv", "7,8,100")
    with pytest.raises(DataError, match="has no item of"):
        world.prepare("ninerec-ku")


def test_pixelrec(world: World) -> None:
    world.text(
        "Item Information/Pixel200K.csv",
        "item_id,view_number,title,tag,description",
        'i1,5,标题,Pets,"two\nlines"',
        "i2,5,二,,",
    )
    world.text("Interaction/Pixel200K.csv", "item_id,user_id,timestamp", "i2,u1,1637280000", "i1,u1,1637280001")
    world.prepare("pixelrec")
    assert world.rows("items")[0] == {"item_id": "i1", "title": "标题", "tag": "Pets", "description": "two\nlines"}
    assert world.tuples("interactions", "user_id", "item_id", "timestamp") == [
        ("u1", "i2", 1637280000),
        ("u1", "i1", 1637280001),
    ]


def test_pixelrec_without_item_information_is_refused(world: World) -> None:
    world.text("Pixel200K.csv", "item_id,user_id,timestamp", "i2,u1,1637280000")
    with pytest.raises(DataError, match="columns item_id, title; none has"):
        world.prepare("pixelrec")


LASTFM = "userid-timestamp-artid-artname-traid-traname.tsv"


def test_lastfm(world: World) -> None:
    world.text(
        f"lastfm-dataset-1K/{LASTFM}",
        'user_000001\t2009-05-04T23:08:57Z\ta-1\tDeep Dish\t\t"Fuck Me Im Famous',
        "user_000001\t2009-05-04T13:54:10Z\ta-2\t坂本龍一\tt-2\tComposition 0919",
        "user_000002\t2009-05-04T13:54:10Z\t\t坂本龍一\tt-3\tComposition 0919",
        "user_000002\t2009-05-04T13:54:10Z\t\tNobody\t\t",
    )
    world.prepare("lastfm-1k")
    deep, music = 'Deep Dish / "Fuck Me Im Famous', "坂本龍一 / Composition 0919"
    assert world.rows("items") == [
        {"item_id": deep, "title": '"Fuck Me Im Famous', "artist": "Deep Dish"},
        {"item_id": music, "title": "Composition 0919", "artist": "坂本龍一"},
    ]
    assert world.tuples("interactions", "user_id", "item_id", "timestamp") == [
        ("user_000001", deep, 1241478537),
        ("user_000001", music, 1241445250),
        ("user_000002", music, 1241445250),
    ]
    assert world.histories()["user_000001"] == [music, deep]


def test_lastfm_with_another_delimiter_is_refused(world: World) -> None:
    world.text(LASTFM, "user_000001,2009-05-04T23:08:57Z,a,b,c,d")
    with pytest.raises(DataError, match="is not in the published format"):
        world.prepare("lastfm-1k")


HM_COLUMNS = (
    "article_id,product_code,prod_name,product_type_name,product_group_name,graphical_appearance_name,"
    "colour_group_name,perceived_colour_value_name,perceived_colour_master_name,department_name,index_name,"
    "index_group_name,section_name,garment_group_name,detail_desc"
)


def hm(world: World, article: str, bought: str) -> World:
    texts = "Strap top,Vest top,Upper body,Solid,Black,Dark,Black,Jersey,Ladieswear,Ladieswear,Basics,Jersey Basic"
    world.text("articles.csv", HM_COLUMNS, f'{article},108775,{texts},"Soft, with straps."')
    header = "t_dat,customer_id,article_id,price,sales_channel_id"
    return world.text("transactions_train.csv", header, f"2018-09-20,000058a1,{bought},0.05,2")


def test_hm(world: World) -> None:
    hm(world, "0108775015", "0108775015").prepare("hm")
    item = world.rows("items")[0]
    assert (item["item_id"], item["prod_name"], item["detail_desc"]) == (
        "0108775015",
        "Strap top",
        "Soft, with straps.",
    )
    assert len(item) == 14
    assert world.rows("interactions") == [{"user_id": "000058a1", "item_id": "0108775015", "timestamp": 1537401600}]


@pytest.mark.parametrize(("article", "bought"), [("108775015", "0108775015"), ("0108775015", "108775015")])
def test_hm_ids_without_their_zero_are_refused(world: World, article: str, bought: str) -> None:
    with pytest.raises(DataError, match="'108775015' has not ten digits"):
        hm(world, article, bought).prepare("hm")


def test_pog(world: World) -> None:
    world.text("item_data.txt", "i1,17,//img/1.jpg,韩版,裤子", "i2,17,//img/2.jpg,")
    world.text("user_data.txt", "u1,i2;i1,o1", "u2,i1,o1", "u1,i1;i2,o2").prepare("pog")
    assert world.tuples("items", "item_id", "title", "title_en") == [("i1", "韩版,裤子", None), ("i2", None, None)]
    assert world.tuples("interactions", "user_id", "item_id", "order") == [
        ("u1", "i2", 0),
        ("u1", "i1", 1),
        ("u2", "i1", 2),
        ("u1", "i1", 3),
        ("u1", "i2", 4),
    ]
    assert world.histories() == {"u1": ["i2", "i1"], "u2": ["i1"]}


def test_pog_takes_translations_where_there_are_some(world: World) -> None:
    world.text("pog_translated_titles.csv", "item,cn,en", 'i1,裤子,"Trousers, wide"').text("user_data.txt", "u1,i1,o1")
    world.prepare("pog")
    assert world.tuples("items", "item_id", "title", "title_en") == [("i1", "裤子", "Trousers, wide")]


def test_pog_with_another_delimiter_is_refused(world: World) -> None:
    world.text("item_data.txt", "i1;17").text("user_data.txt", "u1,i1,o1")
    with pytest.raises(DataError, match=r"item_data\.txt, line 1: not an item"):
        world.prepare("pog")


def amazon_m2(world: World, *sessions: str) -> World:
    world.text(
        "products_train.csv",
        "id,locale,title,price,brand,color,size,model,material,author,desc",
        "B01,UK,Laptop sleeve,20.5,Acme,,,,,,Soft",
        "B01,DE,Laptophülle,21.0,Acme,,,,,,",
        "B02,UK,Bag,1.0,,,,,,,",
    )
    return world.text("sessions_train.csv", "prev_items,next_item,locale", *sessions)


def test_amazon_m2(world: World) -> None:
    amazon_m2(world, "\"['B01'\n 'B02']\",B01,UK", "['B01'],B01,DE", "\"['B02', 'B01']\",B02,UK").prepare("amazon-m2")
    assert world.tuples("items", "item_id", "title", "price", "locale") == [
        ("UK:B01", "Laptop sleeve", "20.5", "UK"),
        ("DE:B01", "Laptophülle", "21.0", "DE"),
        ("UK:B02", "Bag", "1.0", "UK"),
    ]
    assert world.tuples("interactions", "user_id", "item_id", "order") == [
        ("0", "UK:B01", 0),
        ("0", "UK:B02", 1),
        ("0", "UK:B01", 2),
        ("1", "DE:B01", 0),
        ("1", "DE:B01", 1),
        ("2", "UK:B02", 0),
        ("2", "UK:B01", 1),
        ("2", "UK:B02", 2),
    ]


def test_amazon_m2_with_a_broken_list_is_refused(world: World) -> None:
    with pytest.raises(DataError, match=r"sessions_train\.csv, row 2, column 'prev_items': \"\['B01'\" is not a list"):
        amazon_m2(world, "['B01'],B01,UK", "['B01',B01,UK").prepare("amazon-m2")


def recbench(world: World, **test: Any) -> World:
    world.parquet("items.parquet", article_id=[1, 2, 3], detail_desc=["a", None, "c"], year=[1, 2, 3])
    world.parquet("users.parquet", customer_id=["u", "v"], history=[[1, 2], [3]])
    world.parquet("finetune.parquet", customer_id=["v"], article_id=[2], click=[1])
    columns = {"customer_id": ["u", "u"], "article_id": [3, 1], "click": [0, 1]}
    return world.parquet("test.parquet", **(test or columns))


def test_recbench(world: World) -> None:
    recbench(world).prepare("recbench")
    assert world.rows("items")[1] == {"item_id": "2", "detail_desc": None, "year": "2"}
    assert world.tuples("interactions", "user_id", "item_id", "order", "label") == [
        ("u", "1", -2, 1),
        ("u", "2", -1, 1),
        ("v", "3", -1, 1),
        ("u", "3", 0, 0),
        ("u", "1", 0, 1),
        ("v", "2", 0, 1),
    ]
    assert world.tuples("impressions", "user_id", "history", "candidates", "labels", "split") == [
        ("u", ["1", "2"], ["3", "1"], [0, 1], "test"),
        ("v", ["3"], ["2"], [1], "finetune"),
    ]


def test_recbench_of_other_data_or_users_is_refused(world: World) -> None:
    with pytest.raises(DataError, match="should be in"):
        recbench(world, uid=["u"], nid=[1], click=[1]).prepare("recbench")
    with pytest.raises(DataError, match="has no user 'w', who is in test"):
        recbench(world, customer_id=["w"], article_id=[1], click=[1]).prepare("recbench")
