"""Read the elements of shifted matrices where they lie, in the kernels that use them.

A shift is a concatenation of slices, which IREE copies to a new matrix before anything reads it. It fuses a gather,
whose indices are computed from those of the result, with the gather's readers. The update of a weight then takes 16
dispatches instead of 36 for tridiagonal SONew, and 33 instead of 182 dispatches and copies for band 4.

    y = concatenate(x[1:], x[:1] a column on)     becomes     y = gather(x, index)
"""

from __future__ import annotations

import math

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.calls import inline_calls
from sonew_compiled.passes.ir.function import erase_unused, functions
from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.ir.shifts import Shift, shift_of
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.record import Option, Pass

# The indices of larger matrices would overflow 32 bits during their computation.
_MOST = 1 << 30


def gather_shifts(module: ir.Module, *, elements: int) -> None:
    """Replace the shifts of matrices of at least `elements` elements, at the top level of the exports."""
    inline_calls(module)
    for function in functions(module):
        for op in [each.operation for each in function.block.operations]:
            if len(op.results) != 1 or not isinstance(op.results[0].type, ir.RankedTensorType):
                continue
            shape = shape_of(op.results[0])
            if len(shape) == 2 and elements <= math.prod(shape) < _MOST and (shift := shift_of(op)) is not None:
                with ir.InsertionPoint(op):
                    op.results[0].replace_all_uses_with(_gathered(shift, shape))
        erase_unused(function)
    run_mlir_passes(module, "builtin.module(func.func(cse))")


def _gathered(shift: Shift, shape: list[int]) -> ir.Value:
    """The shifted matrix.

    The row after the last one is the first row of the next column. In memory that is the element after the first row's
    own. So an index beyond the last row goes back by all elements but one, and an index before the first row goes
    forward by as many.
    """
    rows, columns = shape
    count = rows * columns
    i32 = ir.IntegerType.get_signless(32)  # a row before the first has a negative number
    row, column = (build.iota(shape, dim, i32) for dim in (0, 1))
    moved = build.elementwise("add", row, shift.by)
    outside = (
        build.compare("GE", moved, build.like(rows, moved), "SIGNED")
        if shift.by > 0
        else build.compare("LT", moved, build.like(0, moved), "SIGNED")
    )
    inside = build.elementwise("add", build.elementwise("multiply", moved, columns), column)
    back = build.elementwise("add", inside, 1 - count if shift.by > 0 else count - 1)
    index = build.select(outside, back, inside)
    read = build.slices_at(build.reshape(shift.source, [count]), index)
    # A shift that wraps is filled at the end of the last column alone, or at the beginning of the first one.
    edge = build.compare("EQ", column, build.like(columns - 1 if shift.by > 0 else 0, column), "SIGNED")
    filled = build.elementwise("and", outside, edge) if shift.wraps else outside
    return build.select(filled, build.broadcast(_scalar(shift.fill), shape), read)


def _scalar(fill: ir.Value) -> ir.Value:
    """The number of a splat."""
    rank = len(shape_of(fill))
    return build.reshape(build.slice_of(fill, [0] * rank, [1] * rank), [])


PASS = Pass(
    name="gather-shifts",
    summary="read the elements of shifted matrices where they lie",
    description=__doc__,
    run=gather_shifts,
    options=(
        Option(
            name="elements",
            default=1024,
            help="elements of the smallest matrix whose shifts are gathered",
            read=int,
        ),
    ),
)
