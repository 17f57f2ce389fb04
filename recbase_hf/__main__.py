"""`python -m recbase_hf` is `recbase`."""

from recbase_hf.cli import main

main()
