"""Give the operands and results of regions buffers of their own, which live until their last reader.

IREE 3.13 mistreats memory that comes out of a `case`, `if` or `while` in three ways:

- A value that a region passes through from outside shares its memory with the result. IREE frees that memory after the
  last reader of the result, even if readers of the value are still to come.
- Values that share one buffer are one operand of a branch, several times. If the branch empties the register before it
  has copied it, the others get nothing: "ref is null", or no wait at all if the operand is a fence.
- If the body of a loop does not read a carried value, IREE removes the value from the loop's operands but not from its
  results, and crashes.

Behind a barrier each value is a buffer of its own, which is freed when nothing refers to it. A value that a region may
return twice is copied (`passes/ir/copies.py`).

    %r = case(%i) {return %x}        becomes        %r = barrier(case(%i) {return barrier(%x)})
"""

from __future__ import annotations

from collections.abc import Sequence

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.calls import inline_all_calls
from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.copies import Copies
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_LOOP = "stablehlo.while"
_REGIONS = ("stablehlo.case", "stablehlo.if", _LOOP)
_NAMING = (
    "stablehlo.add",
    "stablehlo.and",
    "stablehlo.convert",
    "stablehlo.divide",
    "stablehlo.maximum",
    "stablehlo.minimum",
    "stablehlo.multiply",
    "stablehlo.optimization_barrier",
    "stablehlo.or",
    "stablehlo.reshape",
    "stablehlo.select",
    "stablehlo.slice",
    "stablehlo.subtract",
    "stablehlo.transpose",
)


def fence_regions(module: ir.Module) -> None:
    """Put barriers after every `case`, `if` and `while`, before the terminators of their regions, and before loops.

    Functions are inlined into the exports if a region may return a value twice.
    """
    found = [op for op in operations_in(module.operation) if op.name in _REGIONS]
    if any(_repeated(op) for each in found for op in _handing(each)):
        inline_all_calls(module)
    for function in functions(module):
        copies = Copies(function)
        for op in operations_in(function.op):
            if op.name in _REGIONS:
                _fence(op, copies)


def _fence(op: ir.Operation, copies: Copies) -> None:
    handing = _handing(op)
    unread = [each for each in op.regions[1].blocks[0].arguments if not _is_read(each)] if op.name == _LOOP else []
    for each in handing:
        with ir.InsertionPoint(each):
            for index in _repeated(each):
                each.operands[index] = copies.of(each.operands[index])
        # IREE never removes a barrier, and so keeps everything that the barrier reads.
        _fence_operands(each, read=unread if each != op else [])
    if list(op.results):
        with ir.InsertionPoint.after(op):
            held = build.apart(list(op.results))
        for result, each in zip(op.results, held, strict=True):
            result.replace_all_uses_except(each, each.owner.operation)


def _handing(op: ir.Operation) -> list[ir.Operation]:
    """The operations whose operands become the results, or the values that a loop carries."""
    if op.name == _LOOP:
        return [op, _terminator(op.regions[1])]
    return [_terminator(region) for region in op.regions]


def _repeated(op: ir.Operation) -> list[int]:
    """The operands that may share memory with an earlier operand."""
    seen: set[ir.Value] = set()
    repeated = []
    for index, operand in enumerate(op.operands):
        roots = _roots(operand)
        if roots & seen:
            repeated.append(index)
        seen |= roots
    return repeated


def _is_read(value: ir.Value) -> bool:
    """Whether any result of the region depends on the value once IREE has removed dead code.

    An update that overwrites its whole operand reads nothing of it. A scan of one step consists of such updates.
    """
    seen, waiting = {value}, [value]
    while waiting:
        here = waiting.pop()
        for use in here.uses:
            reader = use.owner.operation
            if list(reader.regions) or not list(reader.results):
                return True
            if not _is_overwritten(reader, use.operand_number):
                made = [each for each in reader.results if each not in seen]
                seen.update(made)
                waiting += made
    return False


def _is_overwritten(op: ir.Operation, operand: int) -> bool:
    """Whether the operation overwrites the whole operand."""
    return op.name == "stablehlo.dynamic_update_slice" and operand == 0 and op.operands[0].type == op.operands[1].type


def _roots(value: ir.Value) -> set[ir.Value]:
    """The values for which this one may prove to be another name.

    Moves, selects and arithmetic with constants may fold to one of their operands: `x * 1` is `x`.
    """
    maker = owner(value)
    if maker is None or maker.name not in _NAMING:
        return {value}
    if maker.name == "stablehlo.select":
        return _roots(maker.operands[1]) | _roots(maker.operands[2])
    if maker.name == "stablehlo.optimization_barrier":
        return _roots(maker.operands[ir.OpResult(value).result_number])
    computed = [each for each in maker.operands if not is_splat(each)]
    return _roots(computed[0]) if len(computed) == 1 else {value}


def _fence_operands(op: ir.Operation, *, read: Sequence[ir.Value] = ()) -> None:
    """Make an operation read its operands from a barrier, which also reads the values `read`."""
    if not list(op.operands):
        return
    with ir.InsertionPoint(op):
        held = build.apart([*op.operands, *read])
    for index, value in enumerate(held[: len(op.operands)]):
        op.operands[index] = value


def _terminator(region: ir.Region) -> ir.Operation:
    *_, last = region.blocks[0].operations
    return last.operation


PASS = Pass(
    name="fence-regions",
    summary="give the operands and results of branches and loops buffers of their own",
    description=__doc__,
    run=fence_regions,
)
