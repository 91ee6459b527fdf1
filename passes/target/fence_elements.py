"""Keep the elements of gathers and reversed tensors apart from what IREE cannot fuse with them.

IREE 3.13 computes a gather or a reversal element by element where it is read.

First, it fuses a number that is computed from such an element and from a sum, a maximum or the like into the kernel of
the sum. Its code for processors then adds a scalar to a vector of one element, which is not compiled ("op requires the
same type for all operands and results"), or crashes the compiler. So its readers read a copy (`flow.tensor.clone`).

    gather(x, i)[0] + sum(x)  becomes  flow.tensor.clone(gather(x, i)[0]) + sum(x)

Second, it reads the elements of a slice with steps along the last axis in place, and its code for processors does not
compile ("LLVM Translation failed for operation: builtin.unrealized_conversion_cast"). So they are read from a copy.

    reverse(x[:, ::2])  becomes  reverse(flow.tensor.clone(x[:, ::2]))
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.elementwise import FUSED, MOVES
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import Readers, operations_in, owner, readers_beyond
from sonew_compiled.passes.record import Pass

# IREE computes these, and elementwise operations on their results, element by element where they are read. A cumulative
# operation from the end is the reverse of one from the start.
_READING = ("stablehlo.gather", "stablehlo.reverse", "stablehlo.reduce_window")


def fence_elements(module: ir.Module) -> None:
    """Put a `flow.tensor.clone` after each operation that leaves a single element of a gather or a reversed tensor.

    Another goes after each slice with steps along the last axis whose elements are gathered or reversed.
    """
    fenced: dict[ir.Operation, None] = {}
    for op in operations_in(module.operation):
        if op.name in _READING and len(op.results) == 1:
            fenced |= dict.fromkeys(_steps_before(op.operands[0]))
            if _is_single(op):
                fenced[op] = None
            else:
                fenced |= dict.fromkeys(each for each in readers_beyond(op, _goes_on) if _is_moved_single(each))
    for op in fenced:
        readers = Readers(op.results[0])
        with ir.InsertionPoint.after(op):
            readers.redirect(build.clone(op.results[0]))


def _steps_before(value: ir.Value) -> Iterator[ir.Operation]:
    """The slice with steps along its last axis from which only moves lead to the value; none if there is none."""
    while (op := owner(value)) is not None and op.name in MOVES:
        if op.name == "stablehlo.slice" and list(ir.DenseI64ArrayAttr(op.attributes["strides"]))[-1:] > [1]:
            yield op
            return
        value = op.operands[0]


def _is_single(op: ir.Operation) -> bool:
    return math.prod(shape_of(op.results[0])) == 1


def _is_moved_single(op: ir.Operation) -> bool:
    return op.name in MOVES and _is_single(op)


def _goes_on(user: ir.Operation) -> bool:
    return (user.name in MOVES or user.name in FUSED) and not _is_single(user)


PASS = Pass(
    name="fence-elements",
    summary="keep elements of gathers and reversed tensors apart from what cannot be fused with them",
    description=__doc__,
    run=fence_elements,
)
