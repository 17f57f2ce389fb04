"""`recbase config`: configurations for `accelerate launch`, to print or to copy."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option
from recbase_hf.files import atomic_file

__all__ = ["COMMAND", "LAUNCH_CONFIGS", "LaunchConfig", "launch_config"]

LAUNCH_CONFIGS = {
    "fsdp": "fsdp2.yaml",
    "fsdp2": "fsdp2.yaml",
    "ddp": "ddp.yaml",
    "deepspeed-zero2": "deepspeed-zero2.yaml",
    "deepspeed-zero3": "deepspeed-zero3.yaml",
    "cpu-2-processes": "cpu-2-processes.yaml",
}
"""Names and files; FSDP is its second version, the first is deprecated in torch."""


@dataclass(frozen=True)
class LaunchConfig:
    """Print a configuration for accelerate launch --config_file, or write it to a file.

    The name may stand first: recbase config fsdp --output fsdp.yaml.
    """

    name: str = option(help="which one; fsdp is fsdp2", choices=tuple(LAUNCH_CONFIGS))
    output: str | None = option(None, help="file to write; default the terminal")


def launch_config(name: str) -> str:
    """The text of a configuration, by its name in `LAUNCH_CONFIGS`."""
    return (resources.files("recbase_hf") / "launch_configs" / LAUNCH_CONFIGS[name]).read_text(encoding="utf-8")


def run(options: LaunchConfig) -> Answer:
    """Print or write."""
    text = launch_config(options.name)
    content = {"name": options.name, "text": text, "file": options.output}
    if options.output is None:
        return Answer(text.rstrip("\n"), content)
    _require_no_other(Path(options.output), text)
    with atomic_file(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    told = f"{options.output}: edit num_processes, then accelerate launch --config_file {options.output} ..."
    return Answer(told, content)


def _require_no_other(path: Path, text: str) -> None:
    """Raise where a file has another content, which somebody may have edited.

    Raises:
        FileExistsError: names the file and the fix.
    """
    if path.exists() and (not path.is_file() or path.read_bytes() != text.encode()):
        raise FileExistsError(f"{path} is there already, with another content; name another --output, or delete it")


COMMAND = Command("config", LaunchConfig, run, positional=("name",))
