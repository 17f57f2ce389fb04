"""What travels inside a checkpoint imports nothing that the receiver may lack, and is imported by one name only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
MODULES = sorted((REPOSITORY / "modeling").glob("*.py"))
ALWAYS_THERE = {*sys.stdlib_module_names, "numpy", "torch", "transformers", "safetensors"}


def imports(node: ast.AST):
    """Absolute names that a piece of code imports, and the names of siblings with a dot before them."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level <= 1, f"line {part.lineno} reaches out of the folder"
            yield "." * part.level + (part.module or "").partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_shipped_module_imports_only_what_is_always_there_and_siblings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    siblings = {f".{module.stem}" for module in MODULES}
    at_the_top = {
        name for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for name in imports(node)
    }
    assert at_the_top <= ALWAYS_THERE | siblings
    assert set(imports(tree)) <= ALWAYS_THERE | siblings | {"tokenizers"}


def test_nothing_imports_the_folder_by_a_name_of_its_own():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py", "*.md", "*.toml"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "modeling/__init__.py" in listed
    statement = re.compile(r"^\s*(>>> )?(import|from) modeling\b", re.MULTILINE)
    found = [name for name in listed if statement.search((REPOSITORY / name).read_text(encoding="utf-8"))]
    assert found == []
