"""Keep matrix products apart from the tensors that elementwise operations combine them with, such as a bias.

IREE 3.13 fuses elementwise operations into the product before them. Where the product's tiles are laid out for the
registers of one processor (`--iree-llvmcpu-enable-inner-tiled`), it has no such layout for a tensor of fewer axes, or
of none, and does not compile. A tensor of the product's shape is first copied to that layout, by code of many thousand
instructions, which takes as long to run as what the fusion saves. Elementwise operations on a copy are loops of their
own. IREE leaves the copying itself out later on. (`stablehlo.optimization_barrier` does as well, but the step then
waits there for all that was begun.)
"""

from __future__ import annotations

from sonew_compiled.passes._function import operations_in, owner, readers_beyond, splat_of
from sonew_compiled.passes._mlir import ir
from sonew_compiled.passes._pass import Pass
from sonew_compiled.passes._vectors import is_vectorised

_MOVES = ("stablehlo.transpose", "stablehlo.reshape")


def fence_contractions(module: ir.Module) -> None:
    """Let elementwise operations that combine a `stablehlo.dot_general` with a tensor read a `flow.tensor.clone`.

    A transposition of the product, which IREE writes it in, stays before that.
    """
    module.context.allow_unregistered_dialects = True
    for product in operations_in(module.operation):
        if product.name != "stablehlo.dot_general":
            continue
        op = product
        while len(readers := [use.owner.operation for use in op.results[0].uses]) == 1 and readers[0].name in _MOVES:
            (op,) = readers
        if _is_combined(op):
            (value,) = op.results
            with ir.InsertionPoint.after(op):
                clone = ir.Operation.create("flow.tensor.clone", results=[value.type], operands=[value])
            value.replace_all_uses_except(clone.results[0], clone)


def _is_combined(product: ir.Operation) -> bool:
    """Whether elementwise operations on the result, or on what they make of it, read another tensor."""

    def is_elementwise(user: ir.Operation) -> bool:
        return len(user.results) == 1 and is_vectorised(user)

    users = [each for each in readers_beyond(product, is_elementwise) if is_elementwise(each)]
    made = {product, *users}
    return any(owner(each) not in made and not _is_number(each) for user in users for each in user.operands)


def _is_number(value: ir.Value) -> bool:
    """Whether the tensor is a constant number, or one that is broadcast."""
    op = owner(value)
    if op is not None and op.name == "stablehlo.broadcast_in_dim":
        value = op.operands[0]
    return splat_of(value) is not None


PASS = Pass(
    name="fence-contractions",
    summary="keep matrix products apart from the tensors that they are combined with",
    run=fence_contractions,
)
