"""Sets of operations that do the same kind of thing."""

from __future__ import annotations

CONTRACTIONS = ("stablehlo.dot_general", "stablehlo.convolution")
"""Matrix products and convolutions."""

MOVES = frozenset((
    "func.call", "func.return", "stablehlo.bitcast_convert", "stablehlo.broadcast_in_dim", "stablehlo.case",
    "stablehlo.concatenate", "stablehlo.constant", "stablehlo.custom_call", "stablehlo.dynamic_slice",
    "stablehlo.dynamic_update_slice", "stablehlo.gather", "stablehlo.if", "stablehlo.pad", "stablehlo.reshape",
    "stablehlo.return", "stablehlo.reverse", "stablehlo.select", "stablehlo.slice", "stablehlo.transpose",
    "stablehlo.while",
))  # fmt: skip
"""The operations that only move values, or that have no types of their own."""
