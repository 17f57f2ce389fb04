"""Writing fails whole or succeeds whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from recbase_hf.files import atomic_file, atomic_folder, read_json, sha256_of_file, write_json


@pytest.fixture
def umask():
    """The permissions a new file usually gets."""
    before = os.umask(0o027)
    yield 0o640
    os.umask(before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_file_and_fail(path):
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")


def write_folder(folder, content, **options):
    with atomic_folder(folder, **options) as temporary:
        (temporary / "content.txt").write_text(content)
        (temporary / f"{content}.txt").touch()


def write_folder_and_fail(folder):
    with atomic_folder(folder) as temporary:
        (temporary / "content.txt").write_text("half")
        raise RuntimeError("stop")


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_file_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"):
        write_file_and_fail(target)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_files_get_the_usual_permissions(tmp_path, umask):
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.touch(mode=0o600)  # as safetensors does
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == umask
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "b.txt").touch(mode=0o600)
    assert (tmp_path / "folder" / "inner" / "b.txt").stat().st_mode & 0o777 == umask


def test_json_keeps_order_and_alphabet_and_comes_back(tmp_path):
    content = {"z": [1, 2.5, None], "a": {"titel": "Über 靴"}}
    write_json(tmp_path / "a.json", content)
    assert list(read_json(tmp_path / "a.json")) == ["z", "a"]
    assert read_json(tmp_path / "a.json") == content
    assert "Über 靴" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_content_that_json_cannot_hold_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_broken_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 8192  # more than one block
    (tmp_path / "a.bin").write_bytes(content)
    assert sha256_of_file(tmp_path / "a.bin") == hashlib.sha256(content).hexdigest()


# ---- folders -------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    write_folder(tmp_path / "folder", "old")
    return tmp_path / "folder"


def test_a_folder_gets_the_new_files_and_keeps_the_others(old):
    write_folder(old, "new")
    assert (old / "content.txt").read_text() == "new"
    assert names(old) == ["content.txt", "new.txt", "old.txt"]
    assert names(old.parent) == ["folder"]


def test_a_failure_keeps_the_old_folder_and_leaves_nothing_behind(old):
    with pytest.raises(RuntimeError, match="stop"):
        write_folder_and_fail(old)
    assert (old / "content.txt").read_text() == "old"
    assert names(old) == ["content.txt", "old.txt"]
    assert names(old.parent) == ["folder"]


@pytest.mark.parametrize("next_one_succeeds", [True, False])
def test_a_crash_between_the_two_renames_loses_nothing(old, monkeypatch, next_one_succeeds):
    rename = Path.rename

    def crash_on_the_second(path, target):
        if path.name.endswith(".partial"):
            raise OSError("power failure")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_on_the_second)
        with pytest.raises(OSError, match="power failure"):
            write_folder(old, "new")
    assert (old.with_name(".folder.previous") / "content.txt").read_text() == "old"

    if next_one_succeeds:
        write_folder(old, "newer")
        assert (old / "content.txt").read_text() == "newer"
    else:
        with pytest.raises(RuntimeError, match="stop"):
            write_folder_and_fail(old)
        assert (old / "content.txt").read_text() == "old"
    assert names(old.parent) == ["folder"]


def test_leftovers_of_a_crash_after_the_renames_are_cleared(old):
    write_folder(old.with_name(".folder.previous"), "older")
    write_folder(old, "new")
    assert (old / "content.txt").read_text() == "new"
    assert names(old.parent) == ["folder"]


def test_a_link_to_a_folder_stays_a_link(old):
    link = old.parent / "link"
    link.symlink_to(old)
    write_folder(link, "new")
    assert link.is_symlink()
    assert (old / "content.txt").read_text() == "new"
    assert names(old.parent) == ["folder", "link"]


@pytest.mark.parametrize("spelling", ["folder", "folder/", "./folder", "other/../folder"])
def test_relative_paths_are_relative_to_the_current_folder(tmp_path, monkeypatch, spelling):
    monkeypatch.chdir(tmp_path)
    write_folder(spelling, "new")
    assert (tmp_path / "folder" / "content.txt").read_text() == "new"


def test_neither_a_file_nor_the_current_folder_is_replaced(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"a\.txt is a file"):
        write_folder(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "precious"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for place in (".", "..", tmp_path / "here"):
        with pytest.raises(FileExistsError, match="current folder"):
            write_folder(place, "new")
    assert names(tmp_path) == ["a.txt", "here"]


def test_written_json_is_plain(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").read_bytes() == json.dumps({"a": 1}, indent=2).encode() + b"\n"
