"""Keep matrix products apart from the tensors that elementwise operations combine them with, such as a bias.

IREE 3.13 fuses elementwise operations into the product before them. That saves little or no time in a step and makes
much more code: half of the compile time under `bf16`. Its compiler crashes if the product is transposed and the
operation after it uses the indices of elements, as stochastic rounding does.

On processors with AVX-512 (AMD's excepted), products are compiled in tiles that fill all registers
(`--iree-llvmcpu-enable-inner-tiled`). IREE has no such layout for a tensor of fewer axes, and does not compile the
fusion at all. It first copies a tensor of the product's shape to that layout, with many thousand instructions that take
as long as the fusion saves.

So the operations after a product read a copy of the other tensor, or of the product, and become a loop of their own.
The copy is `flow.tensor.clone`, which IREE drops later. `stablehlo.optimization_barrier` would do as well, but the step
then waits there for everything that has begun.

An activation that only one product reads is copied as well. IREE would fuse it with the packing of the operand and
emit it for each row of a tile, which is 2,500 lines of LLVM IR for a tanh. With the copy it is stored first, by the
kernel that a training step has anyway, where the backward pass reads the activation too.

A product that a product of many matrices reads is copied too, such as the scores of an attention. IREE tiles the rows
of all matrices as one. If a tile has rows of two of them, the second product reads another matrix's rows, and its
numbers are wrong.

A slice of a tensor is copied too. IREE makes the whole slice on the stack of the kernel that computes the product. A
contracted axis of more than some hundred elements does not fit there, and the compiler gives up.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import is_vectorised
from sonew_compiled.passes.ir.mlir import ir, stablehlo
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
        if product.name != "stablehlo.dot_general":
            continue
        for value in product.operands:
            function = _function_before(value)
            if function is not None:
                _fence(function)
            for part in _parts_before(value):
                _fence(part)
        op = product
        while len(readers := [use.owner.operation for use in op.results[0].uses]) == 1 and readers[0].name in _MOVES:
            (op,) = readers
        if _is_combined(op) or any(_is_batched(each.owner.operation) for each in op.results[0].uses):
            _fence(op)


def _is_batched(op: ir.Operation) -> bool:
    """Whether it is a product of many matrices at once."""
    if op.name != "stablehlo.dot_general":
        return False
    return bool(list(stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"]).lhs_batching_dimensions))


def _fence(op: ir.Operation) -> None:
    """Make all readers of the result read a copy of it."""
    (value,) = op.results
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
    parts, seen, waiting = [], set(), [owner(value)]
    while waiting:
        op = waiting.pop()
        if op is None or op in seen:
            continue
        seen.add(op)
        if op.name in _PARTS:
            parts.append(op)
        elif op.name in _MOVES or (len(op.results) == 1 and is_vectorised(op)):
            waiting += map(owner, op.operands)
    return parts


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
