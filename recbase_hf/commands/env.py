"""`recbase env`: versions and hardware, for bug reports."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from recbase_hf.commands.command import Answer, Command

__all__ = ["COMMAND", "Env"]

_PACKAGES = (
    "recbase-hf", "torch", "transformers", "accelerate", "datasets", "tokenizers", "peft", "huggingface_hub",
    "safetensors", "evaluate", "sentence-transformers", "numpy", "pyarrow",
)  # fmt: skip


@dataclass(frozen=True)
class Env:
    """Print versions and hardware."""


def run(_options: Env) -> Answer:
    """A line each."""
    import torch

    versions = {name: _version(name) for name in _PACKAGES}
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    content = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "accelerator": None if accelerator is None else str(accelerator),
        "threads": torch.get_num_threads(),
    }
    lines = [
        f"python {content['python']} on {content['platform']}",
        *(f"{name} {version or 'not installed'}" for name, version in versions.items()),
        f"accelerator {accelerator or 'none'}, {content['threads']} threads",
    ]
    return Answer("\n".join(lines), content)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


COMMAND = Command("env", Env, run)
