"""Sum a product of tensors, one of which is repeated, first over the axes that both have.

IREE 3.13 treats a sum of such a product over several axes as a matrix product without rows or columns, and does not
compile it ("invalid accumulator/result vector shape", or vectors that are too large). The sum over the common axes is a
product that IREE compiles well.

    reduce(multiply(broadcast(v), m), dimensions = [0, 1])
becomes
    reduce(reduce(multiply(broadcast(v), m), dimensions = [1]), dimensions = [0])

Elementwise operations and reshapes may lie between the broadcast and the product. The order of a sum is free in
StableHLO, and its initial value is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

# IREE computes these in the kernel of the sum, and so sees what is repeated below them.
_ELEMENTWISE = {
    f"stablehlo.{name}"
    for name in (
        *("abs", "cbrt", "ceil", "convert", "cosine", "exponential", "exponential_minus_one", "floor", "log"),
        *("log_plus_one", "logistic", "negate", "round_nearest_afz", "round_nearest_even", "rsqrt", "sign", "sine"),
        *("sqrt", "tan", "tanh", "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "atan2"),
        *("remainder", "compare", "select", "clamp", "and", "or", "xor", "not"),
    )
}
# Looking further costs time, and recursion has an end; IREE's kernels are no longer than this.
_FAR = 40


def order_sums(module: ir.Module) -> None:
    """Cut in two each sum of a product over axes if the tensors share some of these axes, but not all."""
    known: dict[ir.Value, set[int]] = {}
    for op in operations_in(module.operation):
        if op.name != "stablehlo.reduce" or not _is_sum(op):
            continue
        (product, _), dims = op.operands, list(ir.DenseI64ArrayAttr(op.attributes["dimensions"]))
        maker = owner(product)
        if maker is None or maker.name != "stablehlo.multiply":
            continue
        left, right = (_axes(each, known) for each in maker.operands)
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


def _axes(value: ir.Value, known: dict[ir.Value, set[int]], far: int = 0) -> set[int]:
    """The axes of more than one element along which the tensor is not repeated."""
    if value not in known:
        known[value] = _found(value, known, far + 1) if far < _FAR else _long(value)
    return known[value]


def _found(value: ir.Value, known: dict[ir.Value, set[int]], far: int) -> set[int]:
    op = owner(value)
    if op is None:
        return _long(value)
    if op.name == "stablehlo.broadcast_in_dim":
        dims = list(ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"]))
        return {dims[axis] for axis in _axes(op.operands[0], known, far)}
    if op.name == "stablehlo.transpose":
        order = list(ir.DenseI64ArrayAttr(op.attributes["permutation"]))
        return {order.index(axis) for axis in _axes(op.operands[0], known, far)}
    if op.name == "stablehlo.reshape":
        # IREE makes several reshapes one, such as those of `jnp.tile`.
        source = op.operands[0]
        while (before := owner(source)) is not None and before.name == "stablehlo.reshape":
            source = before.operands[0]
        return _reshaped(_axes(source, known, far), shape_of(source), shape_of(value))
    if op.name in _ELEMENTWISE:
        return set().union(*(_axes(each, known, far) for each in op.operands))
    return set() if is_splat(value) else _long(value)


def _long(value: ir.Value) -> set[int]:
    return {axis for axis, size in enumerate(shape_of(value)) if size != 1}


def _reshaped(own: set[int], before: Sequence[int], after: Sequence[int]) -> set[int]:
    """The axes of a reshape's result that hold something of these axes of its operand."""
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
