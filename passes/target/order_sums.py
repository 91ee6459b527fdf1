"""Sum a product of tensors, one of which is repeated, first over the axes that both have.

IREE 3.13 treats a sum of such a product over several axes as a matrix product without rows or columns. It still gives
the sum vectors for rows and columns. Its verifier refuses the code ("invalid accumulator/result vector shape"), or the
compiler finds the vectors too large. The sum over the axes that both tensors have is a matrix-vector product or a
matrix product, which IREE compiles well. The rest is a sum of its results.

    reduce(multiply(broadcast(v), m), dimensions = [0, 1])
becomes
    reduce(reduce(multiply(broadcast(v), m), dimensions = [1]), dimensions = [0])

StableHLO leaves the order of a sum to the implementation, and requires its initial value to be zero.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass


def order_sums(module: ir.Module) -> None:
    """Cut in two each sum of a product over axes if the tensors share some of these axes, but not all."""
    for op in operations_in(module.operation):
        if op.name != "stablehlo.reduce" or not _is_sum(op):
            continue
        (product, _), dims = op.operands, list(ir.DenseI64ArrayAttr(op.attributes["dimensions"]))
        maker = owner(product)
        if maker is None or maker.name != "stablehlo.multiply":
            continue
        left, right = map(_axes, maker.operands)
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


def _axes(value: ir.Value) -> set[int]:
    """The axes of more than one element along which the tensor is not repeated."""
    op = owner(value)
    if op is not None and op.name == "stablehlo.convert":
        return _axes(op.operands[0])
    if op is not None and op.name == "stablehlo.broadcast_in_dim":
        dims = list(ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"]))
        return {dims[axis] for axis in _axes(op.operands[0])}
    if op is not None and op.name == "stablehlo.transpose":
        order = list(ir.DenseI64ArrayAttr(op.attributes["permutation"]))
        return {order.index(axis) for axis in _axes(op.operands[0])}
    return set() if is_splat(value) else {axis for axis, size in enumerate(shape_of(value)) if size != 1}


PASS = Pass(
    name="order-sums",
    summary="sum a product first over the axes that both tensors have",
    description=__doc__,
    run=order_sums,
)
