"""The `recbase` command line: a name for each command, whose module is imported only when it runs."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from recbase_hf.commands.command import Command, Group, fail
from recbase_hf.version import __version__

__all__ = ["COMMANDS", "command_of", "main"]

COMMANDS = {
    "demo": "zero-shot: the trained model of the package on data that every machine has",
    "demo-train": "the whole loop on such data, from item texts to a language model",
    "init": "a log to a folder with tables and configurations, ready for the other commands",
    "train-tokenizer": "item texts to a tokenizer; on several devices: accelerate launch examples/train_tokenizer.py",
    "data": "published data sets to the two-table form",
    "doctor": "what is wrong with item tables and their semantic IDs, and the fix",
    "pretrain": "histories to a language model; on several devices: accelerate launch examples/pretrain.py",
    "finetune": "a bundle and one shop's data to an adapter; on several devices: accelerate launch "
    "examples/finetune_lora.py",
    "merge": "an adapter and its base to one bundle",
    "extend": "a bundle whose tokenizer has deeper codes refitted to a far domain, to be fine-tuned next",
    "plan": "memory, speed, hours and cost of a pretraining, before it runs",
    "scaling": "a power law through the losses of small runs, and what it says about larger ones",
    "config": "Accelerate's configurations for DDP, FSDP2, DeepSpeed and two CPU processes",
    "build-catalog": "an item table to a catalog",
    "catalog": "add, remove, diff, migrate, import or export the items of a catalog",
    "recommend": "the best items of a catalog for one history",
    "score": "the candidates of every row of a table; on several devices: accelerate launch examples/score.py",
    "calibrate": "weighs score, popularity and text similarity on training domains, and stores that in the bundle",
    "evaluate": "zero-shot figures beside baselines",
    "report": "receipts of evaluations side by side: tables and plots",
    "rerun": "an evaluation once more, from its receipt, and whether the same comes out",
    "card": "the card of a bundle, tokenizer, adapter, catalog or data set, with figures from receipts",
    "push": "a bundle, tokenizer, adapter, catalog or data set to the Hub, checked, in one commit",
    "completion": "a script with which the shell completes commands, options and files",
    "env": "versions and hardware, for bug reports",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    The status is 0 where it did what it was asked, 1 where the answer of a gate is no, 2 on an error, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return
    if arguments[0] == "--version":
        print(f"recbase-hf {__version__}")
        return
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        fail(f"recbase: unknown command {name!r}{f'; did you mean {near[0]}?' if near else ''}\n\n{_help()}")
    command_of(name)(rest)


def command_of(name: str) -> Command | Group:
    """The command, or group of commands, of a name in `COMMANDS`; imports its module."""
    return importlib.import_module(f"recbase_hf.commands.{name.replace('-', '_')}").COMMAND


def _help() -> str:
    lines = [f"  {name:16} {text}" for name, text in COMMANDS.items()]
    return "usage: recbase COMMAND [options]\n\n" + "\n".join(lines) + "\n\n`recbase COMMAND --help` shows its options."


if __name__ == "__main__":
    main()
