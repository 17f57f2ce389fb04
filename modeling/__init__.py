"""The code that travels inside a checkpoint: each module is self-contained and loads with `trust_remote_code`."""
