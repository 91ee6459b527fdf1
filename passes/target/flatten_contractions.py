"""Give each matrix product one contracted axis, and one other axis of each operand besides its batches.

The gradient of a layer on sequences of vectors contracts two axes, and IREE 3.13 transposes an operand for it. If
another product reads the same activation as it is, IREE makes the activation in one kernel that packs it twice, tiles
the two differently, and refuses its own vectors: "One or more operations with large vector sizes (16384 bytes) were
found". A model whose embedding is tied to its logits is of this kind. A product of matrices needs no transposition:

    dot_general(d : 4x48x128, x : 4x48x64), contracting dimensions = [0, 1] x [0, 1]
becomes
    dot_general(reshape(d) : 192x128, reshape(x) : 192x64), contracting dimensions = [0] x [0]

Axes that do not lie next to each other in order stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.products import dot_numbers
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


@dataclass(frozen=True)
class _Operand:
    """An operand of a product, and its axes of each kind."""

    value: ir.Value
    batches: list[int]
    contracted: list[int]
    kept: list[int]


def flatten_contractions(module: ir.Module) -> None:
    """Reshape the operands and the result of each `stablehlo.dot_general` with several axes of one kind."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.dot_general":
            continue
        before = _operands(op)
        # The contracted axes of both operands become one, or those of neither.
        both = all(_is_run(each.contracted) for each in before)
        with ir.InsertionPoint(op):
            after = [_merged(each, contracted=both) for each in before]
            if all(new.value == old.value for new, old in zip(after, before, strict=True)):
                continue
            flat = _product(op, *after)
            result = build.reshape(flat, shape_of(op.results[0]))
        op.results[0].replace_all_uses_with(result)
        op.erase()


def _operands(op: ir.Operation) -> list[_Operand]:
    numbers = dot_numbers(op)
    kinds = (
        (list(numbers.lhs_batching_dimensions), list(numbers.lhs_contracting_dimensions)),
        (list(numbers.rhs_batching_dimensions), list(numbers.rhs_contracting_dimensions)),
    )
    return [
        _Operand(value, *kind, [axis for axis in range(len(shape_of(value))) if axis not in (*kind[0], *kind[1])])
        for value, kind in zip(op.operands, kinds, strict=True)
    ]


def _is_run(axes: Sequence[int]) -> bool:
    """Whether there are several axes, which lie next to each other in this order."""
    return len(axes) > 1 and list(axes) == list(range(axes[0], axes[0] + len(axes)))


def _merged(operand: _Operand, *, contracted: bool) -> _Operand:
    """The operand with its kept axes made one if they can be, and with its contracted ones if that is wanted."""
    runs = [operand.contracted] * contracted + [operand.kept] * _is_run(operand.kept)
    first = {axis: run[0] for run in runs for axis in run}
    shape = shape_of(operand.value)
    heads = [first.get(axis, axis) for axis in range(len(shape))]
    places = {head: place for place, head in enumerate(dict.fromkeys(heads))}
    sizes = [math.prod(shape[axis] for axis, at in enumerate(heads) if at == head) for head in places]
    kinds = (operand.batches, operand.contracted, operand.kept)
    moved = [list(dict.fromkeys(places[heads[axis]] for axis in axes)) for axes in kinds]
    return _Operand(build.reshape(operand.value, sizes), *moved)


def _product(op: ir.Operation, left: _Operand, right: _Operand) -> ir.Value:
    """The product of these operands, with the attributes that another one has."""
    product = op.clone()
    product.operands[0], product.operands[1] = left.value, right.value
    product.attributes["dot_dimension_numbers"] = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=left.batches,
        rhs_batching_dimensions=right.batches,
        lhs_contracting_dimensions=left.contracted,
        rhs_contracting_dimensions=right.contracted,
    )
    lhs, rhs = shape_of(left.value), shape_of(right.value)
    shape = [lhs[axis] for axis in (*left.batches, *left.kept)] + [rhs[axis] for axis in right.kept]
    product.results[0].set_type(ir.RankedTensorType.get(shape, element_type(op.results[0])))
    return product.results[0]


PASS = Pass(
    name="flatten-contractions",
    summary="give products one contracted axis and one other axis of each operand",
    description=__doc__,
    run=flatten_contractions,
)
