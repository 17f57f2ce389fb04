"""Pretrain the language model: `accelerate launch examples/pretrain.py` (no flags: on the embedded data set).

Options: `--help`; they may come from `--config examples/configs/pretrain.yaml`.
"""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["pretrain", *sys.argv[1:]])
