"""What the command line and the scripts in `examples/` run: each module has a `main(arguments)`."""
