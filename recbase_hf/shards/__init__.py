"""Packed token shards: from the tables of many domains to rows of tokens that training reads, at any size."""
