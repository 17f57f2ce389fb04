"""Encode an item table into a catalog: `python examples/build_catalog.py --model FOLDER --items items.csv`."""

from recbase_hf.commands.build_catalog import main

if __name__ == "__main__":
    main()
