"""Before a large run: what it needs in memory, time and money, and what small runs say about its loss."""
