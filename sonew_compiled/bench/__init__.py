"""Benchmarks and tuning, for `sonew bench` and `sonew tune`. Only the command line imports this package."""
