"""Read a part of a tensor from what was written there.

A scan of JAX writes a row of a stack in each iteration, and its gradient reads the rows. Where `unroll-loops` has made
both loops a sequence, each row is known by its value, and nothing else may read the stack:

    %s1 = dynamic_update_slice(%s0, %row0, 0)
    %s2 = dynamic_update_slice(%s1, %row1, 1)
    f(dynamic_slice(%s2, 0))
becomes
    f(%row0)

IREE 3.13 copies each row to the stack, in a dispatch of its own. An LSTM has a dozen stacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sonew_compiled.passes.ir.function import erase_unused, functions
from sonew_compiled.passes.ir.known import known_integers, known_starts
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.record import Pass

_READ = "stablehlo.dynamic_slice"
_WRITE = "stablehlo.dynamic_update_slice"


def forward_rows(module: ir.Module) -> None:
    """Replace each `stablehlo.dynamic_slice` at the top of a function that reads the whole of an earlier update."""
    for function in functions(module):
        operations = [each.operation for each in function.block.operations]
        reads = [op for op in operations if op.name == _READ]
        if not reads or not any(op.name == _WRITE for op in operations):
            continue
        known = known_integers(operations)
        replaced = False
        for op in reads:
            starts = known_starts(op.operands[1:], shape_of(op.operands[0]), shape_of(op.results[0]), known)
            row = None if starts is None else _written(op, starts, known)
            if row is not None:
                op.results[0].replace_all_uses_with(row)
                replaced = True
        if replaced:
            erase_unused(function)


def _written(read: ir.Operation, starts: Sequence[int], known: Mapping[ir.Value, int]) -> ir.Value | None:
    """The value that an update wrote to just the part that is read, if no later update may have changed it."""
    sizes = shape_of(read.results[0])
    maker = owner(read.operands[0])
    while maker is not None and maker.name == _WRITE:
        tensor, row, *indices = maker.operands
        places = known_starts(indices, shape_of(tensor), shape_of(row), known)
        if places is None:
            return None
        if places == list(starts) and shape_of(row) == sizes:
            return row
        others = zip(starts, sizes, places, shape_of(row), strict=True)
        if all(start < place + length and place < start + size for start, size, place, length in others):
            return None
        maker = owner(tensor)
    return None


PASS = Pass(
    name="forward-rows",
    summary="read rows of stacks from what was written there",
    description=__doc__,
    run=forward_rows,
)
