"""Pad unsigned integers before windows are reduced.

IREE 3.13 pads the operand of a window reduction itself, and does not compile that for unsigned integers, such as their
cumulative sums.

    reduce_window(x, init), padding = [[3, 0]]      becomes      reduce_window(pad(x, init, low = [3]), init)
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import axis_numbers, paddings
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def pad_windows(module: ir.Module) -> None:
    """Pad the operands of every `reduce_window` of unsigned integers that has a padding."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.reduce_window" or "padding" not in op.attributes:
            continue
        inputs = range(len(op.results))
        if not any(_is_unsigned(op.operands[index]) for index in inputs):
            continue
        rank = len(shape_of(op.results[0]))
        low, high = paddings(op, rank).T.tolist()
        between = [step - 1 for step in axis_numbers(op, "base_dilations", rank)]
        if "base_dilations" in op.attributes:
            del op.attributes["base_dilations"]
        with ir.InsertionPoint(op):
            for index in inputs:
                init = op.operands[len(inputs) + index]
                op.operands[index] = build.pad(op.operands[index], init, low, high, between)
        del op.attributes["padding"]


def _is_unsigned(value: ir.Value) -> bool:
    element = element_type(value)
    return isinstance(element, ir.IntegerType) and element.is_unsigned


PASS = Pass(
    name="pad-windows",
    summary="pad unsigned integers before windows are reduced",
    description=__doc__,
    run=pad_windows,
)
