"""From StableHLO to one executable for each target: `lower` adapts and compiles, `targets` lists the targets.

This file imports nothing, so that a device without the compilers can list the targets.
"""
