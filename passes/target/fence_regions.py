"""Keep apart what regions take and give: every value has memory of its own name, and lives as long as it is read.

IREE 3.13 is wrong about memory that comes out of a `case`, `if` or `while` in three ways:

- A value that a region hands through from outside shares its memory with the result. IREE frees the result's memory
  after the last reader of the result, although the value's own readers are still to come: what is computed next is
  written there.
- Several values in one piece of memory are one operand, several times, of the branch in IREE's bytecode. It moves each
  into place, and where the move that empties the register comes first the others get nothing: "ref is null", or, where
  it is the fence that says when the values are there, no wait at all.
- What a loop carries and its body does not read, or only where IREE finds that it need not, is taken away from the
  loop's operands but not from its results, and the conversion that follows takes the one for the other: the compiler
  crashes.

Behind a barrier each value is a buffer of its own, which is freed when nothing refers to it. A value that a region
hands on twice, as far as that can be told, is copied (`passes/ir/copies.py`). The device is waited for at a barrier, as
it is for the condition anyway.

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
    """Put barriers behind the results of every `case`, `if` and `while`, and before what their regions hand on.

    Functions are inlined into the exports where a region hands on a value twice.
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
        # A barrier is never taken away, and so what it reads is read.
        _fence_operands(each, read=unread if each != op else [])
    if list(op.results):
        with ir.InsertionPoint.after(op):
            held = build.apart(list(op.results))
        for result, each in zip(op.results, held, strict=True):
            result.replace_all_uses_except(each, each.owner.operation)


def _handing(op: ir.Operation) -> list[ir.Operation]:
    """The operations whose operands become the results, or what a loop goes on with."""
    if op.name == _LOOP:
        return [op, _terminator(op.regions[1])]
    return [_terminator(region) for region in op.regions]


def _repeated(op: ir.Operation) -> list[int]:
    """The operands that may be the same memory as one before."""
    seen: set[ir.Value] = set()
    repeated = []
    for index, operand in enumerate(op.operands):
        roots = _roots(operand)
        if roots & seen:
            repeated.append(index)
        seen |= roots
    return repeated


def _is_read(value: ir.Value) -> bool:
    """Whether the region needs the value for anything that it hands on, also after IREE has taken away what is dead.

    An update that covers the whole of what it is written into reads none of it. A scan of one step is made of them.
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
    """Whether it is an update of the whole operand."""
    return op.name == "stablehlo.dynamic_update_slice" and operand == 0 and op.operands[0].type == op.operands[1].type


def _roots(value: ir.Value) -> set[ir.Value]:
    """The values of which this one may turn out to be no more than another name.

    That is what moves, choices and arithmetic with constants can be found to come to: `x * 1` is `x`.
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
    """Let an operation read its operands from behind a barrier, which reads more."""
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
    summary="keep apart what branches and loops take and give",
    description=__doc__,
    run=fence_regions,
)
