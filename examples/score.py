"""Score a table: `accelerate launch examples/score.py --model FOLDER --catalog FOLDER --table pairs.parquet`.

Options: `--help`. The same command goes on where it was interrupted, also on another number of processes.
"""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["score", *sys.argv[1:]])
