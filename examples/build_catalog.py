"""Encode an item table into a catalog: `python examples/build_catalog.py --model FOLDER --items items.csv`."""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["build-catalog", *sys.argv[1:]])
