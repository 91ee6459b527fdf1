"""Give each operation that a compiler does in place an operand of its own.

IREE 3.13 sorts, scatters and updates slices in the memory of the operand if the module shows no other reader. Yet an
argument belongs to the caller, and IREE keeps equal constants and iotas once for all users. If IREE does see another
reader, it does not always order the two, nor the first and the last of three updates. So the operand becomes a copy
that IREE does not merge with the original.

    sort(%x, iota)        becomes        sort(copy 1 of %x, copy 2 of iota)

A loop owns a value that it carries once its first value is its own. So the first value is copied, and the updates in
the body are not.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.calls import inline_all_calls
from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.copies import Copies
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_SORT = "stablehlo.sort"
_SCATTER = "stablehlo.scatter"
_UPDATE = "stablehlo.dynamic_update_slice"
_IN_PLACE = (_SORT, _SCATTER, _UPDATE)
_LOOP = "stablehlo.while"


def own_operands(module: ir.Module) -> None:
    """Copy what a `sort`, `scatter` or `dynamic_update_slice` overwrites, and the first values of loops around one.

    Functions are inlined into the exports where there is such an operation.
    """
    if not any(op.name in _IN_PLACE for op in operations_in(module.operation)):
        return
    inline_all_calls(module)
    for function in functions(module):
        copies = Copies(function)
        for op in operations_in(function.op):
            if op.name in _IN_PLACE:
                chosen = [index for index in _overwritten(op) if not _is_own(op, index)]
            elif op.name == _LOOP and any(inner.name in _IN_PLACE for inner in operations_in(op)):
                chosen = [index for index, value in enumerate(op.operands) if not is_splat(value)]
            else:
                continue
            with ir.InsertionPoint(op):
                for index in chosen:
                    op.operands[index] = copies.of(op.operands[index])


def _overwritten(op: ir.Operation) -> range:
    """The operands whose memory the results take."""
    return range(1 if op.name == _UPDATE else len(op.results))


def _is_own(op: ir.Operation, index: int) -> bool:
    """Whether nothing else can read the memory of the operand."""
    value = op.operands[index]
    if op.name != _SORT and is_splat(value):
        return True  # the memory of a splat is filled anew for each reader
    if len(list(value.uses)) > 1 or _block_of(value) != op.block:
        return False
    maker = owner(value)
    if maker is not None:
        return maker.name in _IN_PLACE and not _is_updated_twice(maker)
    return bool(ir.BlockArgument(value).owner.owner.name == _LOOP)


def _is_updated_twice(op: ir.Operation) -> bool:
    """Whether an update changes the result of another: IREE orders only two updates of one memory."""
    before = owner(op.operands[0]) if op.name == _UPDATE else None
    return before is not None and before.name == _UPDATE


def _block_of(value: ir.Value) -> ir.Block:
    maker = owner(value)
    return ir.BlockArgument(value).owner if maker is None else maker.block


PASS = Pass(
    name="own-operands",
    summary="give each operation that works in place an operand of its own",
    description=__doc__,
    run=own_operands,
)
