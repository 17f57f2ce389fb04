"""`recbase config`: configurations for `accelerate launch`, to print or to copy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from recbase_hf.config import option, parse_arguments
from recbase_hf.files import atomic_file

__all__ = ["LAUNCH_CONFIGS", "LaunchConfig", "launch_config", "main"]

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and print or write."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--name")
    description = LaunchConfig.__doc__ or ""
    options = parse_arguments(LaunchConfig, arguments, program="recbase config", description=description)
    text = launch_config(options.name)
    if options.output is None:
        print(text, end="")
        return
    _require_no_other(Path(options.output), text)
    with atomic_file(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{options.output}: edit num_processes, then accelerate launch --config_file {options.output} ...")


def _require_no_other(path: Path, text: str) -> None:
    """Raise where a file has another content, which somebody may have edited.

    Raises:
        FileExistsError: names the file and the fix.
    """
    if path.exists() and (not path.is_file() or path.read_bytes() != text.encode()):
        raise FileExistsError(f"{path} is there already, with another content; name another --output, or delete it")
