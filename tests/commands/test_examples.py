"""The scripts in `examples/` hold nothing: the package does the work."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

from recbase_hf.cli import command_of

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def test_there_is_a_script_for_each_step():
    wanted = {"train_tokenizer", "pretrain", "finetune_lora", "build_catalog", "evaluate", "recommend"}
    assert {script.stem for script in SCRIPTS} >= wanted


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_a_shim_of_the_command_of_its_name(script):
    source = script.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 20
    tree = ast.parse(source)
    assert ast.get_docstring(tree), "it says how to start it"
    imports = [
        (node.module, [name.name for name in node.names]) for node in tree.body if isinstance(node, ast.ImportFrom)
    ]
    assert imports == [("recbase_hf.cli", ["main"])]
    command = "finetune" if script.stem == "finetune_lora" else script.stem.replace("_", "-")
    name = f'"data", "{command}"' if command == "pack" else f'"{command}"'
    assert re.search(rf'if __name__ == "__main__":\n    main\(\[{name}, \*sys.argv\[1:\]\]\)\n$', source)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_shows_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((EXAMPLES / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_is_valid_for_the_command_that_it_is_named_after(path):
    stem = max((script.stem for script in SCRIPTS if path.stem.startswith(script.stem)), key=len)
    command = command_of(stem.replace("_", "-"))
    assert isinstance(command.parser().parse(["--config", str(path)]), command.options)
