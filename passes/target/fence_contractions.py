"""Keep matrix products apart from the tensors that elementwise operations combine them with, such as a bias.

IREE 3.13 fuses elementwise operations into the product before them. That saves little time and makes much more code:
half of the compile time under `bf16`. With tiles that fill all registers (`--iree-llvmcpu-enable-inner-tiled`, for
AVX-512) it does not compile a fusion with a tensor of fewer axes, and copies a tensor of the product's shape to the
tiles' layout, which takes as long as the fusion saves. So the operations read a copy (`flow.tensor.clone`), and become
a loop of their own. IREE drops the copy later. A `stablehlo.optimization_barrier` would make the step wait for
everything that has begun.

The pass also copies

- the product, if it is transposed and the operation after it uses the indices of elements: the compiler crashes;
- an activation that only one product reads: IREE would emit it for each row of a packed tile;
- a product that a product of many matrices reads, such as an attention's scores: IREE tiles the rows of all matrices as
  one, and the second product reads another matrix's rows. Its numbers are wrong;
- a slice of a tensor: IREE makes the whole slice on the kernel's stack, and gives up where it does not fit;
- a number that a whole tensor is reduced to, such as the mean by which an operand is divided: IREE packs the operand in
  the kernel of the reduction, and refuses the result ("write affecting operations on global resources are restricted to
  workgroup distributed contexts"). A multiplication by a broadcast tensor whose results are summed counts as a product.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import is_vectorised, operations_before
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.products import dot_numbers
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import Readers, operations_in, owner, readers_beyond
from sonew_compiled.passes.record import Pass

_MOVES = ("stablehlo.transpose", "stablehlo.reshape")
_PARTS = ("stablehlo.dynamic_slice", "stablehlo.slice")
_ROUNDINGS = ("stablehlo.convert", "stablehlo.reduce_precision")
# Operations that take many instructions.
_FUNCTIONS = (
    "stablehlo.cosine",
    "stablehlo.exponential",
    "stablehlo.exponential_minus_one",
    "stablehlo.log",
    "stablehlo.log_plus_one",
    "stablehlo.logistic",
    "stablehlo.sine",
    "stablehlo.tanh",
)


def fence_contractions(module: ir.Module) -> None:
    """Put a `flow.tensor.clone` after each `stablehlo.dot_general` that is combined, and after its activations.

    A transposition of the product stays before the copy, because IREE writes the product transposed.
    """
    for product in operations_in(module.operation):
        for factor in _factors(product):
            for number in _numbers_before(factor):
                _fence(number)
        if product.name != "stablehlo.dot_general":
            continue
        for value in product.operands:
            function = _function_before(value)
            if function is not None:
                _fence(function)
            for part in (*_parts_before(value), *_numbers_before(value)):
                _fence(part)
        op = product
        while len(readers := [use.owner.operation for use in op.results[0].uses]) == 1 and readers[0].name in _MOVES:
            (op,) = readers
        if _is_combined(op) or any(_is_batched(each.owner.operation) for each in op.results[0].uses):
            _fence(op)


def _factors(op: ir.Operation) -> list[ir.Value]:
    """The factors of a product that is summed along some axes, if one of them lacks such an axis; else none."""
    if op.name != "stablehlo.reduce" or len(op.results) > 1 or not shape_of(op.results[0]):
        return []
    source = owner(op.operands[0])
    if source is None or source.name != "stablehlo.multiply":
        return []
    makers = [owner(value) for value in source.operands]
    spread = [each for each in makers if each is not None and each.name == "stablehlo.broadcast_in_dim"]
    return list(source.operands) if any(shape_of(each.operands[0]) for each in spread) else []


def _is_batched(op: ir.Operation) -> bool:
    """Whether it is a product of many matrices at once."""
    if op.name != "stablehlo.dot_general":
        return False
    return bool(list(dot_numbers(op).lhs_batching_dimensions))


def _fence(op: ir.Operation) -> None:
    """Make all readers of the results read copies of them."""
    for value in op.results:
        readers = Readers(value)
        with ir.InsertionPoint.after(op):
            readers.redirect(build.clone(value))


def _function_before(value: ir.Value) -> ir.Operation | None:
    """The elementary function that makes this value, rounded or not; None if others read its result too."""
    while (op := owner(value)) is not None and len(list(value.uses)) == 1:
        if op.name in _FUNCTIONS:
            return op
        if op.name not in _ROUNDINGS:
            return None
        value = op.operands[0]
    return None


def _parts_before(value: ir.Value) -> list[ir.Operation]:
    """The slices without a copy from which only moves and elementwise operations lead to the value."""
    return list(operations_before(value, lambda op: op.name in _PARTS, _MOVES))


def _numbers_before(value: ir.Value) -> list[ir.Operation]:
    """The reductions to a number from which only moves, broadcasts and elementwise operations lead to the value."""
    passed = (*_MOVES, *_FUNCTIONS, "stablehlo.broadcast_in_dim")
    return list(
        operations_before(value, lambda op: op.name == "stablehlo.reduce" and not shape_of(op.results[0]), passed)
    )


def _is_combined(product: ir.Operation) -> bool:
    """Whether the elementwise operations that follow the product read another tensor."""

    def is_elementwise(user: ir.Operation) -> bool:
        return len(user.results) == 1 and is_vectorised(user)

    users = [each for each in readers_beyond(product, is_elementwise) if is_elementwise(each)]
    made = {product, *users}
    return any(owner(each) not in made and not _is_number(each) for user in users for each in user.operands)


def _is_number(value: ir.Value) -> bool:
    """Whether the tensor is a constant number, broadcast or not."""
    op = owner(value)
    if op is not None and op.name == "stablehlo.broadcast_in_dim":
        value = op.operands[0]
    return splat_of(value) is not None


PASS = Pass(
    name="fence-contractions",
    summary="keep matrix products apart from the tensors that they are combined with",
    description=__doc__,
    run=fence_contractions,
)
