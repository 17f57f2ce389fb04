"""`recbase demo-train` and the commands that it launches."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbase_hf import cli


def test_a_stage_that_fails_ends_the_demo_and_prints_nothing_where_the_answer_goes(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RECBASE_CACHE", "restored after the demo has set it")
    monkeypatch.setattr("recbase_hf.commands.options.resolve_folder", Path)  # nothing installed is read
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho what a stage prints\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(SystemExit) as end:
        cli.main(["demo-train", "--data", str(tmp_path), "--output", str(tmp_path / "demo"), "--json"])
    assert end.value.code == 2
    assert "train-tokenizer ended with status 3; run the demo again" in str(end.value)
    printed, said = capfd.readouterr()
    assert printed == ""
    assert "what a stage prints" in said
