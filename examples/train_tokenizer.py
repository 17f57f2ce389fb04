"""Train a tokenizer: `accelerate launch examples/train_tokenizer.py --data FOLDER ... --output runs/mine`.

Options: `--help`; they may come from `--config examples/configs/train_tokenizer.yaml`.
"""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["train-tokenizer", *sys.argv[1:]])
