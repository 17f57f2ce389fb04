"""Recommend items of a catalog: `python examples/recommend.py --model FOLDER --catalog FOLDER --history ID ID`."""

from recbase_hf.commands.recommend import main

if __name__ == "__main__":
    main()
