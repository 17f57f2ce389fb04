"""Templates of the cards that travel with what is published."""
