"""From StableHLO to one executable for each target: `lower` adapts and compiles, `targets` says for what.

Nothing is imported here: a device without the compilers lists the targets.
"""
