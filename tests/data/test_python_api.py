"""The python-api data set: what counts as a use, how names are resolved, and what is written."""

from __future__ import annotations

import json
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbase_hf.data import python_api
from recbase_hf.data.python_api import build_python_api, extract_domain, filter_histories
from recbase_hf.data.python_source import ItemText
from recbase_hf.errors import DataError

Uses: TypeAlias = Callable[[str], list[str]]

LIBRARY = {
    "json/__init__.py": (
        '"""JSON encoding.\n\nMore."""\nfrom .decoder import Decoder\nINDENT = 2\n'
        'def loads(s):\n    """Read.\n\n    Long."""\n'
    ),
    "json/decoder.py": "class Decoder:\n    '''Decodes.'''\n    def decode(self): ...\n",
    "os.py": "import posixpath as path\nfrom posix import *\nfrom os.path import sep\nenviron = {}\n",
    "posixpath.py": "from generic import *\nsep = '/'\ndef join(a, *p):\n    '''Join paths.'''\ndef _hidden(): ...\n",
    "generic.py": "def exists(path):\n    '''Whether a path is there.'''\n",
}
NAMES = {"json", "os", "posixpath", "generic", "posix", "itertools", "sys"}


def write_tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.fixture
def uses(tmp_path: Path) -> Uses:
    """Source of a file `user.py` beside a small standard library -> the names it uses."""

    def history(source: str) -> list[str]:
        root = write_tree(tmp_path, {**LIBRARY, "user.py": source})
        return extract_domain([root], packages=NAMES).histories.get("user.py", [])

    return history


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import json\njson.loads", ["json", "json.loads"]),
        ("import json as j\nj.loads", ["json", "json.loads"]),
        ("from json import loads as read\nread('1')", ["json.loads"]),
        ("import os.path\nos.path.join", ["os.path", "os.path.join"]),
        ("import os\nos.path.exists('x')", ["os", "os.path.exists"]),
        ("from os import path as p\np.join", ["os.path", "os.path.join"]),
        ("import json.decoder as d\nd.Decoder", ["json.decoder", "json.decoder.Decoder"]),
        ("from json import *\nloads", ["json"]),
        ("import json\njson.Decoder.decode.__doc__", ["json", "json.Decoder"]),
        ("from itertools import chain\nchain.from_iterable", ["itertools.chain"]),
        ("import sys\nsys.stdout.write('')", ["sys", "sys.stdout"]),
        ("import os\nos.listdir", ["os", "os.listdir"]),
    ],
)
def test_names_are_written_as_used_with_aliases_resolved(uses: Uses, source: str, expected: list[str]) -> None:
    assert uses(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "import missing, numpy\nnumpy.array",
        "from os import environ, sep",
        "from json import INDENT, nothing_there",
        "from posixpath import _hidden",
        "from .... import json",
        "def loads(): ...\nloads()\njson = {}\njson.loads",
    ],
)
def test_constants_private_unknown_and_local_names_are_no_events(uses: Uses, source: str) -> None:
    assert uses(source) == []


def test_events_stand_in_order_of_first_use_without_repeats(uses: Uses) -> None:
    source = "import sys, os\ndef f():\n    import json\n    return json.loads(os.getpid())\nos.path.join(sys.argv)"
    source += "\nos.getpid"
    assert uses(source) == ["sys", "os", "json", "json.loads", "os.getpid", "os.path.join", "sys.argv"]


def test_a_parameter_hides_an_import_only_in_its_function(uses: Uses) -> None:
    assert uses("import json\ndef f(json): json.loads\nf = lambda json: json.Decoder") == ["json"]
    assert uses("import json\ndef f(json): ...\ndef g(): json.loads") == ["json", "json.loads"]


def test_a_fallback_assignment_does_not_hide_the_import(uses: Uses) -> None:
    source = "try:\n    import json\nexcept ImportError:\n    json = None\njson.loads"
    assert uses(source) == ["json", "json.loads"]


def test_texts_come_from_the_definition_behind_a_reexport(tmp_path: Path) -> None:
    source = "import json, itertools\njson.loads\njson.Decoder\nitertools.chain\nimport os.path\nos.path.join"
    items = extract_domain([write_tree(tmp_path, {**LIBRARY, "u.py": source})], packages=NAMES).items
    assert items["json"] == ItemText("module", "JSON encoding.")
    assert items["json.loads"] == ItemText("function", "Read.")
    assert items["json.Decoder"] == ItemText("class", "Decodes.")
    assert items["itertools.chain"] == ItemText(None, None)
    assert items["os.path.join"] == ItemText("function", "Join paths.")


@pytest.mark.parametrize("form", ["from .m{} import x", "from .m{} import *"])
def test_reexports_are_followed_five_times(tmp_path: Path, form: str) -> None:
    files = {f"p/m{i}.py": form.format(i + 1) for i in range(6)} | {"p/m6.py": "class x: 'Deep.'", "p/__init__.py": ""}
    files["q.py"] = "import p.m0, p.m1\np.m0.x, p.m1.x"
    extraction = extract_domain([write_tree(tmp_path, files)])
    assert extraction.histories["q.py"] == ["p.m0", "p.m1", "p.m1.x"]
    assert extraction.items["p.m1.x"] == ItemText("class", "Deep.")


def test_relative_imports_and_reexports_of_own_names(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "from . import a\nfrom .a import A, B",
        "p/a.py": "from p import A as mine, Other\nclass A: ...\nclass B: ...\nB()",
        "p/s/__init__.py": "",
        "p/s/b.py": "from ..a import A\nfrom .. import a\nfrom . import c\na.B",
        "p/s/c.py": "import p\np.a.A\np.B",
    }
    histories = extract_domain([write_tree(tmp_path, files)]).histories
    assert histories["p/s/b.py"] == ["p.a.A", "p.a", "p.s.c", "p.a.B"]
    assert histories["p/s/c.py"] == ["p", "p.a.A", "p.B"]
    assert histories["p/__init__.py"] == ["p.a", "p.a.A", "p.a.B"]
    assert "p/a.py" not in histories


def test_compiled_and_namespace_modules_are_modules(tmp_path: Path) -> None:
    files = {
        "n/sub/fast.cpython-312-x86_64-linux-gnu.so": "",
        "n/sub/m.py": "",
        "u.py": "import n.sub.fast\nn.sub.fast.go",
    }
    extraction = extract_domain([write_tree(tmp_path, files)])
    assert extraction.histories["u.py"] == ["n.sub.fast", "n.sub.fast.go"]
    assert extraction.items["n.sub.fast"].kind == "module"
    assert extraction.items["n.sub.fast.go"].kind is None


def test_assigning_an_attribute_does_not_make_a_name_a_constant(tmp_path: Path) -> None:
    files = {"n/fast.pyd": "", "n/__init__.py": "from .fast import *\ngo.__module__ = 'n'", "u.py": "import n\nn.go"}
    assert extract_domain([write_tree(tmp_path, files)]).histories["u.py"] == ["n", "n.go"]


def test_unreadable_files_are_skipped_and_counted(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "a.py": "def (",
        "b.py": b"# \xff",
        "c.py": "x = '\0'",
        "d.py": "import sys",
        "e.py": "x = 1 is 1\nimport sys",
    }
    extraction = extract_domain([write_tree(tmp_path, files)], packages={"sys"})
    assert extraction.histories == {"d.py": ["sys"], "e.py": ["sys"]}
    assert (extraction.counts["files_read"], extraction.counts["files_unparsable"]) == (2, 3)


def test_long_elif_chains_are_read(tmp_path: Path) -> None:
    chain = "if x: ...\n" + "elif x: ...\n" * 1500 + "else:\n    def deep(): ...\n"
    root = write_tree(tmp_path, {"p.py": chain, "u.py": "import p\np.deep"})
    assert extract_domain([root]).histories["u.py"] == ["p", "p.deep"]


def test_vendored_and_excluded_packages_are_neither_users_nor_items(tmp_path: Path) -> None:
    files = {
        "p/_vendor/v.py": "class V: ...",
        "own/__init__.py": "import p.m",
        "json.py": "def loads(): ...",
        "p/m.py": "import json, own, p._vendor.v, other\njson.loads",
        "other.py": "import sys",
    }
    extraction = extract_domain([write_tree(tmp_path, files)], exclude={"own", "json", "sys"})
    assert extraction.histories == {"p/m.py": ["other"]}


def test_large_packages_are_sampled_the_same_way_each_time(tmp_path: Path) -> None:
    files = {f"p/m{i}.py": "import q" for i in range(20)} | {"q.py": "", "r.py": "import q\n#" + " " * 999}
    root = write_tree(tmp_path, files)
    first = extract_domain([root], max_files_per_package=7, max_file_bytes=500)
    assert first == extract_domain([root], max_files_per_package=7, max_file_bytes=500)
    assert len(first.histories) == 7
    assert first.counts == {"files_read": 8, "files_unparsable": 0, "files_too_large": 1, "files_not_sampled": 13}
    (root / "p/m0.py").unlink()
    kept = set(first.histories) - {"p/m0.py"}
    assert kept <= set(extract_domain([root], max_files_per_package=7, max_file_bytes=500).histories)


def test_worker_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    root = write_tree(tmp_path, LIBRARY)
    assert extract_domain([root], packages=NAMES, workers=2) == extract_domain([root], packages=NAMES, workers=1)


def test_the_real_json_package(tmp_path: Path) -> None:
    stdlib = Path(sysconfig.get_path("stdlib"))
    files = {f"json/{path.name}": path.read_bytes() for path in (stdlib / "json").glob("*.py")}
    files["user.py"] = b"import json\njson.loads(json.dumps({}))\nraise json.JSONDecodeError"
    extraction = extract_domain([write_tree(tmp_path, files)], packages={"json"})
    assert extraction.histories["user.py"] == ["json", "json.loads", "json.dumps", "json.JSONDecodeError"]
    assert extraction.items["json.loads"].kind == "function"
    assert extraction.items["json.JSONDecodeError"].kind == "class"


@given(
    histories=st.dictionaries(
        st.text("uvw", max_size=4), st.lists(st.sampled_from("abcdefg"), unique=True), max_size=9
    ),
    users=st.integers(1, 3),
    events=st.integers(1, 3),
    cap=st.none() | st.integers(1, 5),
)
def test_filtering_ends_where_both_rules_hold(
    histories: dict[str, list[str]], users: int, events: int, cap: int | None
) -> None:
    kept = filter_histories(histories, min_item_users=users, min_user_events=events, max_items=cap)
    counts = Counter(item for history in kept.values() for item in history)
    assert all(count >= users for count in counts.values())
    assert all(len(history) >= events for history in kept.values())
    assert len(counts) <= (cap or 7)
    assert all(history == [item for item in histories[user] if item in set(history)] for user, history in kept.items())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up library, in the place of this machine's, in which four files use the same seven names."""
    use = "import json, os\njson.loads\njson.Decoder\nos.path.join\nos.path.exists\nos.getpid\n"
    root = write_tree(tmp_path / "lib", {**LIBRARY, **{f"u{i}.py": use for i in range(4)}})
    monkeypatch.setattr(python_api, "_roots", lambda domain: [root])
    return root


def test_build_writes_two_tables_and_a_description(installed: Path, tmp_path: Path) -> None:
    folder = build_python_api(tmp_path / "out", "stdlib")
    items, events = pq.read_table(folder / "items.parquet"), pq.read_table(folder / "interactions.parquet")
    assert items.schema.equals(pa.schema([(name, pa.string()) for name in ("item_id", "name", "kind", "summary")]))
    assert events.schema.equals(pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("order", pa.int32())]))
    assert items["item_id"].to_pylist() == sorted(items["name"].to_pylist())
    exists = {"kind": "function", "summary": "Whether a path is there."}
    assert items.to_pylist()[-2] == {"item_id": "os.path.exists", "name": "os.path.exists", **exists}
    assert set(events["item_id"].to_pylist()) == set(items["item_id"].to_pylist())
    rows = [(row["user_id"], row["order"]) for row in events.to_pylist()]
    assert rows == [(f"u{user}.py", order) for user in range(4) for order in range(7)]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["domain"] == "stdlib"
    assert description["counts"]["users"] == 4
    assert description["counts"]["items"] == 7
    assert description["counts"]["interactions"] == 28


def test_build_is_kept_until_the_environment_changes(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python_api, "_environment_hash", lambda domain: "one")
    folder = build_python_api(tmp_path / "out", "stdlib")
    content = [(folder / name).read_bytes() for name in ("items.parquet", "interactions.parquet")]
    written = (folder / "dataset.json").stat().st_mtime_ns
    build_python_api(folder, "stdlib")
    assert (folder / "dataset.json").stat().st_mtime_ns == written
    monkeypatch.setattr(python_api, "_environment_hash", lambda domain: "two")
    build_python_api(folder, "stdlib")
    assert (folder / "dataset.json").stat().st_mtime_ns > written
    assert content == [(folder / name).read_bytes() for name in ("items.parquet", "interactions.parquet")]


def test_package_files_do_not_count_standard_library_names(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="packages"):
        build_python_api(tmp_path / "out", "packages")
    write_tree(installed, {"pack/__init__.py": "def a(): ...\ndef b(): ...\ndef c(): ...\ndef d(): ...\n"})
    write_tree(
        installed, {f"pack/m{i}.py": "import pack, os\npack.a, pack.b, pack.c, pack.d, os.getpid" for i in range(3)}
    )
    items = pq.read_table(build_python_api(tmp_path / "out", "packages") / "items.parquet")
    assert items["item_id"].to_pylist() == ["pack", "pack.a", "pack.b", "pack.c", "pack.d"]


def test_an_unknown_domain_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nowhere'"):
        build_python_api(tmp_path, "nowhere")  # type: ignore[arg-type]
