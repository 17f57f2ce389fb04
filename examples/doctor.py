"""Examine item tables and their semantic IDs: `python examples/doctor.py --model runs/mine --items my-shop`.

Options: `--help`.
"""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
