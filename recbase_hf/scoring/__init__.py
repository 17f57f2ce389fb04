"""Exact log-probabilities of candidate items, and recommendations from them."""
