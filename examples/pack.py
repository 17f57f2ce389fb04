"""Pack token shards: `accelerate launch examples/pack.py --data FOLDER ... --tokenizer FOLDER --vectors NAME`.

Options: `--help`. The same command goes on where it was interrupted, also on another number of processes.
"""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["data", "pack", *sys.argv[1:]])
