"""Keep sums apart from the operations that read them at another place, such as the mean that a batch norm subtracts.

IREE 3.13 fuses elementwise operations into the kernel of the sum before them, with a transposition or a broadcast in
between. In its code for Vulkan and Metal each thread leaves its sums in the memory of the workgroup, and reads those of
other threads without waiting for them. The numbers are wrong, now and then.

A product of two matrices is made transposed by exchanging its operands. Other sums are copied (`flow.tensor.clone`),
which ends their kernel, unless the broadcast adds axes behind theirs alone: then each thread reads its own.

    transpose(a · b)                       becomes      bᵀ · aᵀ
    transpose(tanh(reduce(x)))             becomes      transpose(flow.tensor.clone(tanh(reduce(x))))
    broadcast(reduce(x), dims = [1])       becomes      broadcast(flow.tensor.clone(reduce(x)), dims = [1])
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.elementwise import FUSED, MOVES, operations_before
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.products import dot_numbers
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_SUMS = ("stablehlo.convolution", "stablehlo.dot_general", "stablehlo.reduce", "stablehlo.reduce_window")


def fence_sums(module: ir.Module) -> None:
    """Exchange the operands of products that are transposed, and put a `flow.tensor.clone` behind other sums."""
    copies: dict[ir.Value, ir.Value] = {}
    for op in operations_in(module.operation):
        if not _reads_elsewhere(op) or not _is_made_of_sums(source := op.operands[0]):
            continue
        product = owner(source)
        if op.name == "stablehlo.transpose" and product is not None and _is_exchange(product, _order(op)):
            with ir.InsertionPoint(op):
                op.results[0].replace_all_uses_with(_exchanged(product, op.results[0].type))
            op.erase()
            product.erase()
            continue
        if source not in copies:
            with ir.InsertionPoint(op):
                copies[source] = build.clone(source)
        op.operands[0] = copies[source]


def _reads_elsewhere(op: ir.Operation) -> bool:
    """Whether a thread that computes a place of the result reads a place of the operand that another thread computes.

    The leading axes of more than one element give each thread its places.
    """
    if op.name == "stablehlo.transpose":
        axes = _order(op)
        return axes != sorted(axes)
    if op.name == "stablehlo.broadcast_in_dim":
        sizes = shape_of(op.operands[0])
        dims = ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"])
        kept = [dim for dim, size in zip(dims, sizes, strict=True) if size > 1]
        wide = [dim for dim, size in enumerate(shape_of(op.results[0])) if size > 1]
        return kept != wide[: len(kept)]
    return False


def _order(transpose: ir.Operation) -> list[int]:
    """The axes of more than one element in the order of the result."""
    sizes = shape_of(transpose.operands[0])
    return [axis for axis in ir.DenseI64ArrayAttr(transpose.attributes["permutation"]) if sizes[axis] > 1]


def _is_made_of_sums(value: ir.Value) -> bool:
    """Whether elementwise operations and moves alone lead from a sum to the value."""
    return any(operations_before(value, lambda op: op.name in _SUMS, (*FUSED, *MOVES)))


def _is_exchange(op: ir.Operation, order: list[int]) -> bool:
    """Whether the order puts the axes of the right operand of a product, which nothing else reads, first."""
    if op.name != "stablehlo.dot_general" or len(list(op.results[0].uses)) > 1:
        return False
    numbers = dot_numbers(op)
    if list(numbers.lhs_batching_dimensions) or 1 in shape_of(op.results[0]):
        return False
    left = len(shape_of(op.operands[0])) - len(list(numbers.lhs_contracting_dimensions))
    rank = len(shape_of(op.results[0]))
    return order == [*range(left, rank), *range(left)]


def _exchanged(product: ir.Operation, kind: ir.Type) -> ir.Value:
    """The product of the same operands in the other order, with the type of its result."""
    numbers, exchanged = dot_numbers(product), product.clone()
    exchanged.operands[0], exchanged.operands[1] = product.operands[1], product.operands[0]
    exchanged.attributes["dot_dimension_numbers"] = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=[],
        rhs_batching_dimensions=[],
        lhs_contracting_dimensions=list(numbers.rhs_contracting_dimensions),
        rhs_contracting_dimensions=list(numbers.lhs_contracting_dimensions),
    )
    exchanged.results[0].set_type(kind)
    return exchanged.results[0]


PASS = Pass(
    name="fence-sums",
    summary="keep sums apart from the operations that read them at another place",
    description=__doc__,
    run=fence_sums,
)
