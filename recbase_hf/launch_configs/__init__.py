"""Configurations for `accelerate launch --config_file`, which `recbase config` writes out."""
