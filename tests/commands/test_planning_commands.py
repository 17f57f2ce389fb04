"""`recbase plan`, `recbase scaling` and `recbase config` as a user types them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recbase_hf.modeling.token_layout import TokenLayout

from recbase_hf import cli
from recbase_hf.commands.config import LAUNCH_CONFIGS, launch_config
from recbase_hf.shards.pack import Packing
from recbase_hf.shards.packing import default_row_length
from recbase_hf.training.settings import Pretraining


def recbase(*arguments: str | Path) -> int:
    """The exit status."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def failure_of(*arguments: str | Path) -> str:
    """The message of the error with which the command ends."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return str(end.value)


# ---- plan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [["base"], ["--config", "base"], ["--config=base"]])
def test_the_model_of_a_plan_stands_first_or_after_config(size, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recbase("plan", *size, "--gpus", "8", "--gpu-memory", "80") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("base: 312,730,624 parameters\n")
    assert "Memory of each of 8 GPUs under ddp" in printed
    assert "It fits into 80 GiB" in printed


@pytest.mark.parametrize("model", [["mini"], ["--config", "mini"]])
def test_options_of_a_plan_may_come_from_a_file(model, capsys, tmp_path):
    (tmp_path / "cluster.yaml").write_text("gpus: 2\ngpu_memory: 40\n", encoding="utf-8")
    assert recbase("plan", *model, "--config", tmp_path / "cluster.yaml") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("mini: ")
    assert "each of 2 GPUs" in printed
    assert "It fits into 40 GiB" in printed


def test_a_file_with_the_name_of_a_model_is_named_by_its_path(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base").write_text("gpus: 2\n", encoding="utf-8")
    assert recbase("plan", "--config", "base") == 0
    assert "Memory of the GPU" in capsys.readouterr().out
    assert recbase("plan", "mini", "--config", "./base") == 0
    assert "each of 2 GPUs" in capsys.readouterr().out


def test_a_plan_that_does_not_fit_says_what_would_and_ends_with_status_1(capsys, tmp_path):
    output = tmp_path / "plan.json"
    options = ["--gpus", "8", "--gpu-memory", "32", "--tokens", "20e9", "--output", output]
    assert recbase("plan", "1.5b", *options) == 1
    printed = capsys.readouterr().out
    assert "It does NOT fit into 32 GiB" in printed
    assert "  --gradient-checkpointing  (" in printed
    assert "Budget of 2e+10 tokens" in printed
    written = json.loads(output.read_text(encoding="utf-8"))
    assert not written["fits"]
    assert written["remedies"]
    assert written["size"] == "1.5b"
    assert written["total_memory"] == sum(written["memory"].values())
    assert recbase("plan", "1.5b", "--gpu-memory", "0.5") == 1
    assert "whatever the options and the number of GPUs" in capsys.readouterr().out


def test_a_plan_has_the_rows_that_pretraining_packs(capsys):
    assert recbase("plan", "mini") == 0
    rows, length = Pretraining.batch_rows, default_row_length(TokenLayout(4, 1024), Packing.max_items)
    assert f"A micro-batch is {rows} rows of {length} tokens" in capsys.readouterr().out
    assert recbase("plan", "mini", "--max-items", "20", "--num-levels", "2") == 0
    printed = capsys.readouterr().out
    assert "rows of 533 tokens" in printed
    assert "a token of windows of 41," in printed


def test_every_speed_of_a_plan_is_said_to_be_assumed(capsys):
    assert recbase("plan", "mini", "--mfu", "0.3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("follows from an assumed MFU of 30 % of 990 TFLOP/s" in line for line in lines)
    for line in lines:
        if "tokens/s" in line or " hours" in line:
            assert "at that MFU; not measured" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["huge"], "invalid choice: 'huge' (choose from"),
        (["--config", "1.5B"], "1.5B: cannot be read"),
        (["--gpus", "8"], "--size is needed: of the model: tiny"),
        (["mini", "--gpus", "7"], "must be a multiple of gpus"),
        (["mini", "--mfu", "40"], "it is a share of the peak"),
        (["mini", "--row-length", "300"], "100 items take 401 tokens, a row has 300"),
    ],
)
def test_wrong_options_of_a_plan_are_refused(arguments, message, capsys):
    assert recbase("plan", *arguments) == 2
    assert message in capsys.readouterr().err


# ---- scaling ---------------------------------------------------------------------------------------------------------


def write_run(
    folder: Path, *, parameters: int = 1_000_000, targets: int, loss: float | None = None, **settings
) -> Path:
    record = {
        "settings": {"epochs": 2.0, "tokenizer": "f1", **settings},
        "parameters": parameters,
        "targets": targets,
        "log": [
            {"step": 1, "train_loss": 9.0, "validation_loss": 9.0},
            {"step": 2, "train_loss": 1.0, "validation_loss": loss or 2 + 50 / (2 * targets) ** 0.3},
        ],
    }
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [write_run(tmp_path / f"run-{targets}", targets=targets) for targets in (10**6, 4 * 10**6, 10**7, 10**8)]


def test_the_law_of_runs_is_printed_and_written(runs, tmp_path, capsys):
    output = tmp_path / "made" / "scaling.html"
    assert recbase("scaling", *runs, "--at-tokens", "1e10", "--resamples", "5", "--output", output) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("L = 2 + 50 / D^0.3\n")
    assert "run-1000000" in printed
    assert "At 1M parameters and 10B tokens: loss 2.0500" in printed
    assert "WARNING: that is 50 times beyond the runs" in printed
    page = output.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Loss over tokens" in page
    assert "<script" not in page


def test_data_counts_each_token_once_and_json_holds_the_law(runs, tmp_path):
    output = tmp_path / "scaling.json"
    assert recbase("scaling", *runs, "--by", "data", "--resamples", "5", "--output", output) == 0
    written = json.loads(output.read_text(encoding="utf-8"))
    assert [run["tokens"] for run in written["runs"]] == [10**6, 4 * 10**6, 10**7, 10**8]
    assert written["law"]["tokens"]["exponent"] == pytest.approx(0.3, abs=1e-3)
    assert "extrapolation" not in written


def test_a_near_extrapolation_has_no_warning(runs, capsys):
    assert recbase("scaling", *runs, "--at-tokens", "1e9", "--resamples", "5") == 0
    assert "WARNING" not in capsys.readouterr().out


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path):
    assert "at least 4 runs, got 3" in failure_of("scaling", *runs[:3])
    assert "at least 4 runs, got 1" in failure_of("scaling", *[runs[0]] * 4)
    assert "holds no training.json" in failure_of("scaling", tmp_path / "absent")
    assert "a law in parameters alone" in failure_of("scaling", *runs, "--by", "parameters")
    assert "do not differ in parameters" in failure_of("scaling", *runs, "--at-parameters", "1e9", "--resamples", "1")
    other = write_run(tmp_path / "other", targets=5 * 10**6, tokenizer="f2")
    assert "2 different tokenizers" in failure_of("scaling", *runs, other)
    stopped = write_run(tmp_path / "stopped", targets=5 * 10**6, patience=3)
    assert "may have stopped early" in failure_of("scaling", *runs, stopped)
    (stopped / "model" / "training.json").write_text(json.dumps({"settings": {}}), encoding="utf-8")
    assert "lacks parameters, targets, log" in failure_of("scaling", *runs, stopped)


def test_a_missing_scipy_is_named_with_its_extra(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert "pip install 'recbase-hf[train]'" in failure_of("scaling", *runs)


def test_a_run_without_validation_is_named(runs, tmp_path):
    record = runs[0] / "model" / "training.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**content, "log": [{"step": 1, "train_loss": 3.0}]}), encoding="utf-8")
    assert "has no validation loss" in failure_of("scaling", *runs)


# ---- config ----------------------------------------------------------------------------------------------------------


def test_a_configuration_is_printed_or_copied(tmp_path, capsys):
    assert recbase("config", "fsdp") == 0
    assert capsys.readouterr().out == launch_config("fsdp2")
    assert recbase("config", "ddp", "--output", tmp_path / "ddp.yaml") == 0
    assert (tmp_path / "ddp.yaml").read_text(encoding="utf-8") == launch_config("ddp")
    assert recbase("config", "fsdp3") == 2
    assert "invalid choice: 'fsdp3'" in capsys.readouterr().err


def test_a_configuration_that_was_edited_is_not_overwritten(tmp_path):
    file = tmp_path / "fsdp.yaml"
    for _ in range(2):
        assert recbase("config", "fsdp", "--output", file) == 0
    edited = launch_config("fsdp").replace("num_processes: 8", "num_processes: 4")
    file.write_text(edited, encoding="utf-8")
    message = failure_of("config", "fsdp", "--output", file)
    assert message == (
        f"recbase config: {file} is there already, with another content; name another --output, or delete it"
    )
    assert file.read_text(encoding="utf-8") == edited
    assert "is there already" in failure_of("config", "fsdp", "--output", tmp_path)


@pytest.mark.parametrize("name", LAUNCH_CONFIGS)
def test_accelerate_reads_every_configuration(name, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    file = tmp_path / LAUNCH_CONFIGS[name]
    file.write_text(launch_config(name), encoding="utf-8")
    config = load_config_from_file(str(file))
    kind = {"fsdp": "FSDP", "fsdp2": "FSDP", "deepspeed-zero2": "DEEPSPEED", "deepspeed-zero3": "DEEPSPEED"}
    assert config.distributed_type.value == kind.get(name, "MULTI_GPU")
    assert config.num_processes >= 2
    assert f"accelerate launch --config_file {file.name} examples/pretrain.py" in launch_config(name)


def test_the_fsdp_configuration_is_what_accelerate_makes_a_plugin_of(tmp_path, monkeypatch):
    from accelerate.commands.launch import _validate_launch_command as validated
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

    file = tmp_path / "fsdp2.yaml"
    file.write_text(launch_config("fsdp2"), encoding="utf-8")
    arguments, *_ = validated(launch_command_parser().parse_args(["--config_file", str(file), "train.py"]))
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.transformer_cls_names_to_wrap == [Qwen2DecoderLayer.__name__]
    assert plugin.state_dict_type.name == "SHARDED_STATE_DICT"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="two processes would share one accelerator")
def test_the_configuration_for_the_cpu_starts_two_processes_that_know_of_each_other(tmp_path):
    config, script = tmp_path / "cpu.yaml", tmp_path / "count.py"
    config.write_text(launch_config("cpu-2-processes"), encoding="utf-8")
    script.write_text(
        "import torch\n"
        "from recbase_hf.training.launch import make_accelerator\n"
        "accelerator = make_accelerator()\n"
        "ranks = accelerator.gather(torch.tensor([accelerator.process_index]))\n"
        "if accelerator.is_main_process: print('ranks', ranks.tolist())\n"
        "accelerator.end_training()\n",
        encoding="utf-8",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    done = subprocess.run(
        [*command, "--main_process_port", str(port), str(script)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "ranks [0, 1]" in done.stdout
