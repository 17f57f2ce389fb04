"""The package is cheap to import, offers what it names, and its wheel holds all of it and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recbase_hf

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

REPOSITORY = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "datasets", "pandas", "pyarrow", "numpy")


def loaded_after(code):
    """The heavy packages that a fresh process has imported after some code."""
    report = f"import sys; sys.stderr.write(' '.join(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True)
    return done.stderr.split()


def test_importing_the_package_imports_nothing_heavy():
    assert loaded_after("import recbase_hf; dir(recbase_hf); recbase_hf.__version__") == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_the_help_of_the_command_line_imports_nothing_heavy(arguments):
    assert loaded_after(f"from recbase_hf.cli import main; main({arguments})") == []


def test_every_public_name_resolves():
    for name in recbase_hf.__all__:
        assert getattr(recbase_hf, name) is not None
        assert name in dir(recbase_hf)
    with pytest.raises(AttributeError, match="no attribute 'RecBase'"):
        recbase_hf.RecBase  # noqa: B018


def test_public_classes_are_those_that_are_registered_with_transformers():
    from transformers import AutoConfig, AutoModel

    assert type(AutoConfig.for_model("clvae")) is recbase_hf.ClVaeConfig
    assert type(AutoModel.from_config(recbase_hf.ClVaeConfig(hidden_dims=[4]))) is recbase_hf.ClVaeModel


@pytest.fixture(scope="module")
def setuptools_settings():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_folder_of_code_is_a_listed_package(setuptools_settings):
    folders = {path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "recbase_hf").rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders}
    beside = {f"recbase_hf.{name}" for name in ("modeling", "hub_cards", "checkpoints")}
    assert set(setuptools_settings["packages"]) == names | beside
    for folder in folders:
        assert (REPOSITORY / folder / "__init__.py").exists(), folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel built, without a network, from a copy of the repository."""
    pytest.importorskip("setuptools", minversion="77")
    root = tmp_path_factory.mktemp("wheel")
    away = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "tests", "benchmarks")
    shutil.copytree(REPOSITORY, root / "copy", ignore=away)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "./", "--no-deps", "--no-build-isolation", "--wheel-dir", str(root)],
        cwd=root / "copy",
        check=True,
        capture_output=True,
    )
    (built,) = root.glob("*.whl")
    with zipfile.ZipFile(built) as file:
        return set(file.namelist())


def test_the_wheel_holds_all_code_cards_and_the_typing_marker(wheel):
    expected = {"recbase_hf/py.typed"}
    for folder, home in [("recbase_hf", "recbase_hf"), ("modeling", "recbase_hf/modeling")]:
        root = REPOSITORY / folder
        shipped = [*root.rglob("*.py"), *root.rglob("*.jinja")]
        expected |= {f"{home}/{path.relative_to(root).as_posix()}" for path in shipped}
    cards = {f"recbase_hf/hub_cards/{path.name}" for path in (REPOSITORY / "hub_cards").glob("*.md")}
    checkpoints = REPOSITORY / "checkpoints"
    weights = {
        f"recbase_hf/checkpoints/{path.relative_to(checkpoints).as_posix()}" for path in checkpoints.rglob("*.*")
    }
    assert cards
    assert any(name.endswith(".safetensors") for name in weights)
    assert expected | cards | {name for name in weights if "__pycache__" not in name} <= wheel


def test_the_wheel_puts_nothing_else_at_the_top(wheel):
    version = recbase_hf.__version__
    assert {name.partition("/")[0] for name in wheel} == {"recbase_hf", f"recbase_hf-{version}.dist-info"}
    assert not any("test" in name or name.endswith((".pyc", ".pkl")) for name in wheel)


def test_the_wheel_carries_its_license_and_command(wheel):
    info = f"recbase_hf-{recbase_hf.__version__}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= wheel
