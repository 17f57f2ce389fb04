"""Zero-shot figures beside baselines: `python examples/evaluate.py --model FOLDER --data FOLDER`."""

from recbase_hf.commands.evaluate import main

if __name__ == "__main__":
    main()
