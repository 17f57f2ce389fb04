"""What all commands have in common: help, statuses, JSON, how errors read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

import recbase_hf
from recbase_hf.cli import COMMANDS, command_of, main
from recbase_hf.commands import env
from recbase_hf.commands.command import Answer, Command, Group
from recbase_hf.errors import DataError


def all_commands() -> Iterator[Command]:
    for name in COMMANDS:
        command = command_of(name)
        if isinstance(command, Group):
            yield from (member for member, _ in command.commands.values())
        else:
            yield command


EVERY = {command.name: command for command in all_commands()}


def status_of(*arguments: str) -> int:
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    return 0


# ---- help ------------------------------------------------------------------------------------------------------------


def test_help_lists_the_commands(capsys):
    for arguments in ([], ["--help"], ["-h"]):
        main(arguments)
        shown = capsys.readouterr().out
        assert all(f"\n  {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("group", ["data", "catalog"])
def test_help_of_a_group_lists_its_commands(group, capsys):
    for arguments in ([group], [group, "--help"]):
        main(arguments)
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in command_of(group).commands)


def test_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"recbase-hf {recbase_hf.__version__}\n"


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help_and_the_same_two_options(name, capsys):
    assert status_of(*name.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: recbase {name} ")
    assert "--config FILE" in shown
    assert "--json" in shown


def test_help_of_every_command_is_quick():
    """Importing PyTorch or transformers alone takes seconds."""
    code = (
        "import sys\nfrom recbase_hf.cli import COMMANDS, command_of\n"
        "for name in COMMANDS:\n"
        "    command_of(name)\n"
        "    late = {'torch', 'transformers', 'datasets', 'pandas', 'sentence_transformers'} & sys.modules.keys()\n"
        "    assert not late, (name, late)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_every_command_refuses_unknown_options_in_two_lines(name, capsys):
    assert status_of(*name.split(), "--no-such-option") == 2
    shown = capsys.readouterr().err
    assert shown == (
        f"recbase {name}: unknown option --no-such-option"
        + shown.partition("--no-such-option")[2].partition("\n")[0]
        + f"\n`recbase {name} --help` shows its options.\n"
    )


def test_a_misspelt_command_is_told_the_nearest(capsys):
    assert status_of("pretrian") == 2
    assert "unknown command 'pretrian'; did you mean pretrain?" in capsys.readouterr().err
    assert status_of("data", "frm-csv") == 2
    assert "recbase data: unknown command 'frm-csv'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("items.csv, row 3: no id"), 2, "recbase env: items.csv, row 3: no id\n"),
        (OSError("disk full"), 2, "recbase env: disk full\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from the last checkpoint, if"),
        (RuntimeError("broken"), 2, "Traceback"),
    ],
)
def test_errors_end_with_their_status_and_say_what_happened(monkeypatch, capsys, error, status, message):
    def fail(_options):
        raise error

    monkeypatch.setattr(env, "COMMAND", Command("env", env.Env, fail))
    assert status_of("env") == status
    assert capsys.readouterr().err.startswith(message)


def test_an_error_of_a_command_ends_the_program_without_a_traceback(tmp_path):
    with pytest.raises(SystemExit, match=r"^recbase recommend: .*is not a whole RecBase bundle") as ended:
        main(["recommend", "--model", str(tmp_path), "--catalog", str(tmp_path)])
    assert ended.value.code == 2


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_yes", [True, False])
def test_an_answer_is_text_for_people_and_json_for_programs(monkeypatch, capsys, is_yes):
    answer = Answer("two hats", {"hats": 2, "share": float("nan")}, is_yes=is_yes)
    monkeypatch.setattr(env, "COMMAND", Command("env", env.Env, lambda _options: answer))
    assert status_of("env") == (0 if is_yes else 1)
    assert capsys.readouterr().out == "two hats\n"
    assert status_of("env", "--json") == (0 if is_yes else 1)
    assert json.loads(capsys.readouterr().out) == {"hats": 2, "share": None}


def test_only_the_first_process_of_a_launch_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    main(["config", "ddp"])
    assert capsys.readouterr().out == ""


def test_json_of_a_real_command_is_all_that_is_printed(capsys):
    main(["env", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["recbase-hf"] == recbase_hf.__version__
    main(["data", "list", "movielens-1m", "--json"])
    assert list(json.loads(capsys.readouterr().out)) == ["movielens-1m"]


def test_what_stands_first_may_also_be_named(capsys):
    main(["config", "ddp"])
    first = capsys.readouterr().out
    main(["config", "--name", "ddp"])
    assert capsys.readouterr().out == first


# ---- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_knows_all_commands(shell, capsys):
    main(["completion", shell])
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "train-rows" in script


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["sco"], ["score"]),
        (["data", "pre"], ["prepare"]),
        (["pretrain", "--siz"], ["--size"]),
        (["pretrain", "--size", "1"], ["1.5b"]),
    ],
)
def test_bash_completes_what_somebody_has_begun_to_type(typed, found, capsys, tmp_path):
    main(["completion", "bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    words = " ".join(["recbase", *typed])
    script = f'source "$0"; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _shtab_recbase; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script, tmp_path / "script"], capture_output=True, text=True)
    assert done.stdout.split() == found, done.stderr
