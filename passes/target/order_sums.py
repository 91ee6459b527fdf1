"""Sum a product of tensors, one of which is repeated, first over the axes that both have.

IREE 3.13 treats a sum of such a product over several axes as a matrix product without rows or columns, and does not
compile it ("invalid accumulator/result vector shape", vectors that are too large, or a crash). The sum over the common
axes is a product that IREE compiles well.

    reduce(multiply(broadcast(v), m), dimensions = [0, 1])
becomes
    reduce(reduce(multiply(broadcast(v), m), dimensions = [1]), dimensions = [0])

Elementwise operations, reshapes, slices and the like may lie between the broadcast and the product. A gather from an
axis that has one place for its slice repeats that slice, and a selection between a tensor and itself is that tensor.
IREE folds a selection by constants, such as whether the constant indices of a gather are within the tensor. The order
of a sum is free in StableHLO, and its initial value is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.elementwise import FUSED
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_PARTS = ("stablehlo.slice", "stablehlo.dynamic_slice", "stablehlo.reverse")
_MOVES = ("stablehlo.broadcast_in_dim", "stablehlo.transpose", "stablehlo.reshape", *_PARTS)
# What IREE computes when compiling, if its operands are constants.
_FOLDED = {"stablehlo.constant", "stablehlo.iota", "stablehlo.reduce", *_MOVES, *FUSED}
# Looking further costs time, and recursion has an end; IREE's kernels are no longer than this.
_FAR = 40


def order_sums(module: ir.Module) -> None:
    """Cut in two each sum of a product over axes if the tensors share some of these axes, but not all."""
    known = _Axes()
    for op in operations_in(module.operation):
        if op.name != "stablehlo.reduce" or not _is_sum(op):
            continue
        (product, _), dims = op.operands, list(ir.DenseI64ArrayAttr(op.attributes["dimensions"]))
        left, right = known.of_factors(product)
        # An axis of one element can go first, since nothing is summed over it.
        later = [dim for dim in dims if dim in left ^ right]
        if not later or not (left & right).intersection(dims):
            continue
        first = [dim for dim in dims if dim not in later]
        with ir.InsertionPoint(op):
            (inner,) = build.reduce_as(op, [product], first)
            (outer,) = build.reduce_as(op, [inner], [dim - sum(done < dim for done in first) for dim in later])
        op.results[0].replace_all_uses_with(outer)
        op.erase()


def _is_sum(op: ir.Operation) -> bool:
    body = [each.operation.name for each in op.regions[0].blocks[0].operations]
    return len(op.results) == 1 and body == ["stablehlo.add", "stablehlo.return"]


class _Axes:
    """The axes of more than one element along which a tensor is not repeated, of every tensor that was asked for."""

    def __init__(self) -> None:
        self._known: dict[ir.Value, set[int]] = {}
        self._same: dict[ir.Value, ir.Value] = {}

    def of_factors(self, value: ir.Value) -> tuple[set[int], set[int]]:
        """Those of both factors of a product, as axes of the value that the product became by moves; else none."""
        moves = []
        while (op := owner(value)) is not None and op.name in _MOVES:
            moves.append(op)
            value = _source(op)
        if op is None or op.name != "stablehlo.multiply":
            return set(), set()
        left, right = map(self.of, op.operands)
        for move in reversed(moves):
            left, right = _moved(move, left), _moved(move, right)
        return left, right

    def of(self, value: ir.Value, far: int = 0) -> set[int]:
        if value not in self._known:
            self._known[value] = self._found(value, far + 1) if far < _FAR else _long(value)
        return self._known[value]

    def _found(self, value: ir.Value, far: int) -> set[int]:
        op = owner(value)
        if op is None:
            return _long(value)
        if op.name == "stablehlo.select" and self._elements(op.operands[1]) == self._elements(op.operands[2]):
            return self.of(op.operands[1], far)
        if op.name == "stablehlo.select" and _is_known(op.operands[0]):
            return min(
                (self.of(each, far) for each in list(op.operands)[1:] if not is_splat(each)), key=len, default=set()
            )
        if op.name in _MOVES:
            return _moved(op, self.of(_source(op), far))
        if op.name == "stablehlo.gather":
            return _gathered(op, self.of(op.operands[0], far))
        if op.name in FUSED:
            return set().union(*(self.of(each, far) for each in op.operands))
        return set() if is_splat(value) else _long(value)

    def _elements(self, value: ir.Value, far: int = 0) -> ir.Value:
        """The tensor that has the same elements in the same order, if IREE sees that; else the value itself."""
        if value not in self._same:
            op, same = owner(value), value
            if op is not None and far < _FAR:
                if op.name == "stablehlo.select":
                    yes, no = (self._elements(each, far + 1) for each in list(op.operands)[1:])
                    same = yes if yes == no else value
                elif op.name == "stablehlo.reshape" or _is_unchanged(op):
                    same = self._elements(op.operands[0], far + 1)
            self._same[value] = same
        return self._same[value]


def _is_known(value: ir.Value) -> bool:
    """Whether a value is made of few constants alone."""
    waiting, count = [value], 0
    while waiting:
        op, count = owner(waiting.pop()), count + 1
        if op is None or count > _FAR or op.name not in _FOLDED:
            return False
        waiting += op.operands
    return True


def _is_unchanged(op: ir.Operation) -> bool:
    """Whether it is a conversion or a broadcast that changes nothing."""
    if op.name not in ("stablehlo.broadcast_in_dim", "stablehlo.convert") or op.operands[0].type != op.results[0].type:
        return False
    dims = [*ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"])] if op.name != "stablehlo.convert" else []
    return dims == sorted(dims)


def _source(move: ir.Operation) -> ir.Value:
    """The tensor that is moved. IREE makes several reshapes one, such as those of `jnp.tile`."""
    value = move.operands[0]
    while move.name == "stablehlo.reshape" and (op := owner(value)) is not None and op.name == "stablehlo.reshape":
        value = op.operands[0]
    return value


def _moved(move: ir.Operation, own: set[int]) -> set[int]:
    """The axes of a move's result that hold something of these axes of its source."""
    shape = shape_of(move.results[0])
    if move.name == "stablehlo.broadcast_in_dim":
        dims = list(ir.DenseI64ArrayAttr(move.attributes["broadcast_dimensions"]))
        return {dims[axis] for axis in own}
    if move.name == "stablehlo.transpose":
        order = list(ir.DenseI64ArrayAttr(move.attributes["permutation"]))
        return {order.index(axis) for axis in own}
    if move.name == "stablehlo.reshape":
        return _reshaped(own, shape_of(_source(move)), shape)
    return {axis for axis in own if shape[axis] != 1}


def _gathered(op: ir.Operation, own: set[int]) -> set[int]:
    """The axes of a gather's result along which it is not repeated, of those of its operand."""
    dimensions = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
    sizes, slices = shape_of(op.operands[0]), list(ir.DenseI64ArrayAttr(op.attributes["slice_sizes"]))
    places = (sizes[axis] - slices[axis] for axis in dimensions.start_index_map)
    if any(places) or list(dimensions.operand_batching_dims):
        return _long(op.results[0])
    left = [axis for axis in range(len(sizes)) if axis not in list(dimensions.collapsed_slice_dims)]
    return {place for axis, place in zip(left, dimensions.offset_dims, strict=True) if axis in own and slices[axis] > 1}


def _long(value: ir.Value) -> set[int]:
    return _long_axes(shape_of(value))


def _long_axes(shape: Sequence[int]) -> set[int]:
    return {axis for axis, size in enumerate(shape) if size != 1}


def _reshaped(own: set[int], before: Sequence[int], after: Sequence[int]) -> set[int]:
    """The axes of a reshape's result that hold something of these axes of its operand."""
    if 0 in before:
        return _long_axes(after) if own else set()
    found: set[int] = set()
    left, right = ([axis for axis, size in enumerate(shape) if size != 1] for shape in (before, after))
    while left:
        # The fewest axes of both that hold the same elements.
        old, new = [left.pop(0)], [right.pop(0)]
        while (here := math.prod(before[a] for a in old)) != (there := math.prod(after[a] for a in new)):
            if here < there:
                old.append(left.pop(0))
            else:
                new.append(right.pop(0))
        if own.intersection(old):
            found.update(new)
    return found


PASS = Pass(
    name="order-sums",
    summary="sum a product first over the axes that both tensors have",
    description=__doc__,
    run=order_sums,
)
