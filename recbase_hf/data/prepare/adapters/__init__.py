"""One module a source format: reads raw files as they were published."""
