"""Benchmarks and tuning: what `sonew bench` and `sonew tune` do. Nothing but the command line imports it."""
