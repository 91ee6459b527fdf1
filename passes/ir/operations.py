"""Operations by what they do."""

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
"""Operations that move values and compute nothing, or that have no types of their own."""
