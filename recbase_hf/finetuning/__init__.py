"""Adapting a pretrained bundle to one shop: adapters, full fine-tuning, and a tokenizer for a far domain."""
