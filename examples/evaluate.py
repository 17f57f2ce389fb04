"""Zero-shot figures beside baselines: `python examples/evaluate.py --model FOLDER --data FOLDER`."""

import sys

from recbase_hf.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
