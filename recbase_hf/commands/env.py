"""`recbase env`: versions and hardware, for bug reports."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

__all__ = ["main"]

_PACKAGES = (
    "recbase-hf", "torch", "transformers", "accelerate", "datasets", "tokenizers", "peft", "huggingface_hub",
    "safetensors", "evaluate", "sentence-transformers", "numpy", "pyarrow",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line each."""
    argparse.ArgumentParser("recbase env", description="Print versions and hardware.").parse_args(arguments)
    import torch

    print(f"python {platform.python_version()} on {platform.platform()}")
    for name in _PACKAGES:
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name} not installed")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    print(f"accelerator {accelerator or 'none'}, {torch.get_num_threads()} threads")
