"""Every code block of README.md and docs/ does its work for a reader who gives one after the other."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState, GradientState

from docs.code_blocks import FENCE, Block, blocks_of, commands_of, words_of
from docs.newcomer_world import MADE_BY, REPOSITORY, extract_installed, write_world
from hub_server import HubServer
from recbase_hf.cli import main

run_process = subprocess.run
DOCUMENTS = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))

FEW_STEPS = ["--max-steps-per-level", "10"]
SMALLER = {
    "accelerate launch examples/train_tokenizer.py": FEW_STEPS,
    "accelerate launch examples/pretrain.py --data": ["--epochs", "0.5", "--batch-rows", "1"],  # of the size mini
    "python benchmarks/zero_shot.py --data": ["--left-out", "data/online-retail", "--steps-per-level", "10"],
    "recbase train-tokenizer": FEW_STEPS,
}
"""What is added to the commands that would train for long, by their beginning."""

ANSWERS_NO = ("recbase doctor",)
"""Gates that may end with status 1 here: published codes, and those of a small shop, do collide."""


class Reader:
    """Somebody who gives all commands in one folder and all Python in one session, as written.

    Args:
        hub: what `recbase push` takes for the Hub.
    """

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self.variables: dict[str, str] = {}
        self.session: dict[str, Any] = {"__name__": "__main__"}
        self.printed = io.StringIO()
        self.to_make = dict(MADE_BY)

    def follow(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            AssertionError: it cannot be done; names document, line and command.
        """
        for command in commands_of(block):
            try:
                LANGUAGES[block.language](self, command.text)
            except (Exception, SystemExit) as error:
                place = f"{block.document.name}:{command.line}: {command.text.strip()}"
                raise AssertionError(f"{place}\n{type(error).__name__}: {error}") from error

    def enter(self, statement: str) -> None:
        """Run a statement of Python."""
        with redirect_stdout(self.printed):
            exec(statement, self.session)

    def compare(self, shown: str) -> None:
        """Hold what is shown against what Python has printed since the last time.

        Raises:
            AssertionError: it is something else.
        """
        assert self.printed.getvalue() == shown
        self.printed = io.StringIO()

    def type(self, command: str) -> None:
        """Run a command of the shell.

        Raises:
            KeyError: the program is not known here.
            AssertionError: it ended with a status other than 0.
        """
        words = words_of(command, self.variables)
        if len(words) == 1 and (assigned := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            self.variables[assigned[1]] = assigned[2]
            return
        for flag, name in pairwise(words):
            made_by = self.to_make.pop(name, None)
            if made_by is not None and flag not in ("--output", "--out"):
                self.type(made_by)
        more = next((more for start, more in SMALLER.items() if command.startswith(start)), [])
        status = PROGRAMS[words[0]](self, [*words[1:], *more])
        assert not status or (status == 1 and command.startswith(ANSWERS_NO)), f"it ended with status {status}"

    def start(self, command: list[str], **options: Any) -> subprocess.CompletedProcess:
        """As `subprocess.run`, but what a command launches stays in this process."""
        if command[1:3] != ["-m", "accelerate.commands.launch"]:
            return run_process(command, **options)
        return subprocess.CompletedProcess(command, self.accelerate(["launch", *command[3:]]) or 0)

    # ---- programs, which return their status -------------------------------------------------------------------------

    def recbase(self, arguments: list[str]) -> Any:
        if arguments[0] == "push":  # libraries read the address of the Hub when they are imported
            environment = {**os.environ, **self.hub.environment("hub-home")}
            return run_process([sys.executable, "-m", "recbase_hf", *arguments], env=environment).returncode
        return in_this_process(lambda: main(arguments), ["recbase", *arguments])

    def accelerate(self, arguments: list[str]) -> Any:
        """One process, however many are asked for; launches of several are tested with what is launched."""
        assert arguments[0] == "launch"
        asked = launch_command_parser().parse_args(arguments[1:])
        if asked.module:
            assert asked.training_script == "recbase_hf"
            return self.recbase(asked.training_script_args)
        return self.python([asked.training_script, *asked.training_script_args])

    def python(self, arguments: list[str]) -> Any:
        if arguments[0] == "-c":
            return in_this_process(lambda: exec(arguments[1], {"__name__": "__main__"}), ["-c", *arguments[2:]])
        return in_this_process(lambda: runpy.run_path(arguments[0], run_name="__main__"), arguments)

    def make(self, arguments: list[str]) -> Any:
        """What the recipe has `recbase` do; the tests that it may run are these."""
        command = ["make", "--dry-run", "--directory", str(REPOSITORY), *arguments]
        recipe = run_process(command, check=True, capture_output=True, text=True).stdout
        steps = re.findall(r"/(recbase .*|python -m pytest)", recipe)
        assert steps, f"nothing in the recipe is known here: {recipe}"
        for step in steps:
            if not step.startswith("python"):
                self.type(step)

    def pip(self, arguments: list[str]) -> Any:
        """What would be installed is this package with extras that it has."""
        name, extras = re.fullmatch(r"install ([\w-]+)(?:\[([\w,]+)\])?", " ".join(arguments)).groups(default="")
        assert name == "recbase-hf"
        assert {*extras.split(","), ""} <= {*importlib.metadata.metadata(name).get_all("Provides-Extra"), ""}

    def source(self, arguments: list[str]) -> Any:
        """What would be entered is the environment that `make` sets up."""
        assert f"VENV ?= {arguments[0].removesuffix('/bin/activate')}\n" in (REPOSITORY / "Makefile").read_text()


LANGUAGES: dict[str, Callable[[Reader, str], Any]] = {
    "": lambda *_: None,
    "bash": Reader.type,
    "json": lambda _, text: json.loads(text),
    "python": Reader.enter,
    "text": Reader.compare,
    "yaml": lambda _, text: yaml.safe_load(text),
}
PROGRAMS: dict[str, Callable[[Reader, list[str]], Any]] = {
    ".": Reader.source,
    "accelerate": Reader.accelerate,
    "make": Reader.make,
    "pip": Reader.pip,
    "python": Reader.python,
    "recbase": Reader.recbase,
}


def in_this_process(run: Callable[[], Any], argv: list[str]) -> Any:
    """The status that a program ends with; what it leaves in the process is taken away."""
    with patch.dict(os.environ), patch.object(sys, "argv", argv):
        try:
            run()
        except SystemExit as end:
            return end.code
        finally:
            AcceleratorState._reset_state(True)
            GradientState._reset_state()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """In a folder with all that a newcomer has."""
    world = tmp_path / "world"
    write_world(world)
    monkeypatch.chdir(world)
    monkeypatch.setenv("RECBASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("recbase_hf.data.python_api._extract_installed", extract_installed)
    with HubServer() as hub:
        reader = Reader(hub)
        monkeypatch.setattr("subprocess.run", reader.start)
        yield reader
    assert hub.unknown == []


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT itself
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_code_of_a_document_runs(document, reader):
    for block in blocks_of(document):
        reader.follow(block)


@pytest.mark.parametrize(
    ("language", "lie", "reason"),
    [
        ("bash", "sudo recbase env", "KeyError: 'sudo'"),
        ("bash", "recbase env | head", r"the shell's \| is not known here"),
        ("bash", "recbase env $NAME", "KeyError: 'NAME'"),
        ("bash", "recbase environment", "it ended with status"),
        ("bash", "recbase env --quickly", "it ended with status"),
        ("bash", "accelerate launch --quickly examples/pretrain.py", "SystemExit: 2"),
        ("bash", "accelerate launch examples/train.py", "No such file"),
        ("bash", "make coffee", "CalledProcessError"),
        ("bash", "make clean", "nothing in the recipe is known here"),
        ("bash", 'pip install "recbase-hf[tea]"', "AssertionError"),
        ("bash", ". venv/bin/activate", "AssertionError"),
        ("python", "recbase_hf.env()", "NameError"),
        ("text", "something that nobody printed", "assert"),
        ("yaml", "a: b: c", "mapping values are not allowed"),
        ("ruby", "puts 1", "KeyError: 'ruby'"),
    ],
)
def test_what_does_not_work_is_said_with_its_place(reader, tmp_path, language, lie, reason):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{FENCE}{language}\n# a comment\n{lie}  # another\n{FENCE}\n")
    [block] = blocks_of(page)
    with pytest.raises(AssertionError, match=f"(?s)page.md:[45]: .*{re.escape(lie)}.*{reason}"):
        reader.follow(block)


@pytest.mark.parametrize("text", ["```bash\nrecbase env\n", "- ```bash\n  recbase env\n  ```\n"])
def test_no_fence_is_overlooked(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page.md has \d fences"):
        blocks_of(page)
