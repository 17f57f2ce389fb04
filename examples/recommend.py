"""Recommend items of a catalog: `python examples/recommend.py --model FOLDER --catalog FOLDER --history ID ID`."""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["recommend", *sys.argv[1:]])
