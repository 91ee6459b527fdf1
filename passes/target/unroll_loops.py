"""Unroll scans of large tensors, and keep out of them what they do not change.

IREE 3.13 copies every tensor that a loop carries in each iteration, even one that the body only passes on. So a scan
over T steps, whose results are stacked in tensors of T rows, moves T * T rows, and its gradient moves the stacks again.

    while(%i = 0, %x = %xs, %stack = %zeros), %i < 28 {
      %row = f(%x, %i)
      return %i + 1, %x, dynamic_update_slice(%stack, %row, %i)
    }
becomes
    f(%xs, 0), f(%xs, 1), ..., f(%xs, 27), each with its update of the stack

What a body passes on is read from outside. A loop with stacks is unrolled as far as `operations` allows: wholly, or by
a divisor of its number of iterations; its gradient, which reads the rows, wholly or not at all. One with a loop inside
is not. All this is done to loops that are in no other
region, whose iterations are known and in which at least `moved` bytes are copied needlessly. Others stay, since IREE
does not compile some loops that read from outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.calls import inline_all_calls
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.function import copied, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of, width_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Option, Pass

_LOOP = "stablehlo.while"
_UPDATE = "stablehlo.dynamic_update_slice"


def unroll_loops(module: ir.Module, *, operations: int, moved: int) -> None:
    """Rewrite each `stablehlo.while` at the top of a function in which much is copied.

    Functions are inlined into the exports if there is a loop.

    Args:
      module: the module, changed in place.
      operations: the most operations that a loop becomes.
      moved: the bytes of stacks and of unchanged tensors, over all iterations, from which on a loop is rewritten.
    """
    if not any(op.name == _LOOP for op in operations_in(module.operation)):
        return
    inline_all_calls(module)
    for function in functions(module):
        for op in [each.operation for each in function.block.operations]:
            if op.name == _LOOP and (trips := _trips(op)) is not None:
                stacked, unchanged = _stacked(op), _unchanged(op)
                if sum(_bytes(op.operands[index]) for index in stacked + unchanged) * trips >= moved:
                    kept = [index for index in range(len(op.operands)) if index not in unchanged]
                    is_whole = _reads_rows(op, unchanged) and _size(op) * trips <= operations
                    _read_from_outside(op, unchanged)
                    _unroll(op, kept, trips, operations if (stacked or is_whole) and not _has_loop(op) else 0)


def _returned(op: ir.Operation, region: int = 1) -> list[ir.Value]:
    """What the terminator of a region gives."""
    *_, last = op.regions[region].blocks[0].operations
    return list(last.operation.operands)


def _arguments(op: ir.Operation, region: int = 1) -> list[ir.Value]:
    return list(op.regions[region].blocks[0].arguments)


def _unchanged(op: ir.Operation) -> list[int]:
    """The carried values that the body passes on."""
    return [index for index, value in enumerate(_returned(op)) if value == _arguments(op)[index]]


def _read_from_outside(op: ir.Operation, unchanged: Sequence[int]) -> None:
    """Have everybody read values that the body passes on as they were before the loop."""
    for index in unchanged:
        for here in (_arguments(op, 0)[index], _arguments(op)[index], op.results[index]):
            here.replace_all_uses_with(op.operands[index])


def _made_again(op: ir.Operation, kept: Sequence[int], times: int) -> None:
    """The loop with some of its carried values, and the body so many times in each iteration."""
    given = [op.operands[index] for index in kept]
    with ir.InsertionPoint(op):
        loop = build.create(_LOOP, given, [each.type for each in given], regions=2)
    for region, repeats in enumerate((1, times)):
        block = loop.regions[region].blocks.append(*(each.type for each in given))
        values = list(block.arguments)
        with ir.InsertionPoint(block):
            for _ in range(repeats):
                named = dict(zip((_arguments(op, region)[index] for index in kept), values, strict=True))
                values = copied(op.regions[region].blocks[0], named)
                values = [values[index] for index in kept] if region else values
            build.create("stablehlo.return", values)
    for index, result in zip(kept, loop.results, strict=True):
        op.results[index].replace_all_uses_with(result)
    op.erase()


def _trips(op: ir.Operation) -> int | None:
    """The iterations of a loop that counts up by ones from a constant to a constant; None of another loop."""
    (condition,) = _returned(op, 0)
    test = owner(condition)
    if test is None or test.name != "stablehlo.compare" or "LT" not in str(test.attributes["comparison_direction"]):
        return None
    arguments = _arguments(op, 0)
    if test.operands[0] not in arguments:
        return None
    index = arguments.index(test.operands[0])
    start, end = _integer(op.operands[index]), _integer(test.operands[1])
    step = owner(_returned(op)[index])
    if start is None or end is None or end <= start or step is None or step.name != "stablehlo.add":
        return None
    counter = _arguments(op)[index]
    addends = [each for each in step.operands if each != counter]
    if len(addends) != 1 or _integer(addends[0]) != 1:
        return None
    return end - start


def _integer(value: ir.Value) -> int | None:
    """The number that a scalar constant is."""
    number = None if shape_of(value) else splat_of(value)
    return ir.IntegerAttr(number).value if isinstance(number, ir.IntegerAttr) else None


def _stacked(op: ir.Operation) -> list[int]:
    """The carried values of which the body updates a slice."""
    return [
        index
        for index, (new, old) in enumerate(zip(_returned(op), _arguments(op), strict=True))
        if (maker := owner(new)) is not None and maker.name == _UPDATE and maker.operands[0] == old
    ]


def _reads_rows(op: ir.Operation, unchanged: Sequence[int]) -> bool:
    """Whether the body takes slices of tensors that it does not change, as the gradient of a scan does of stacks."""
    given = [_arguments(op)[index] for index in unchanged]
    return any(
        each.operation.name == "stablehlo.dynamic_slice" and each.operation.operands[0] in given
        for each in op.regions[1].blocks[0].operations
    )


def _size(op: ir.Operation) -> int:
    """The operations of the body."""
    return sum(1 + len(operations_in(each.operation)) for each in op.regions[1].blocks[0].operations)


def _has_loop(op: ir.Operation) -> bool:
    return any(inner.name == _LOOP for inner in operations_in(op))


def _bytes(value: ir.Value) -> int:
    return math.prod(shape_of(value)) * width_of(element_type(value)) // 8


def _unroll(op: ir.Operation, kept: Sequence[int], trips: int, operations: int) -> None:
    """Do as many iterations in one as there may be operations, or all of them without a loop.

    The loop then carries the values `kept`; nothing reads its others.
    """
    body = op.regions[1].blocks[0]
    size = _size(op)
    times = max((each for each in range(1, trips + 1) if trips % each == 0 and each * size <= operations), default=1)
    if times < trips:
        _made_again(op, kept, times)
        return
    values = list(op.operands)
    with ir.InsertionPoint(op):
        for _ in range(trips):
            values = copied(body, dict(zip(body.arguments, values, strict=True)))
    for index in kept:
        op.results[index].replace_all_uses_with(values[index])
    op.erase()


PASS = Pass(
    name="unroll-loops",
    summary="unroll scans, and keep out of loops what they do not change",
    description=__doc__,
    run=unroll_loops,
    options=(
        Option(name="operations", default=8192, help="the most operations made of a loop", read=int),
        Option(
            name="moved",
            default=1 << 24,
            help="the bytes copied needlessly from which on a loop is rewritten",
            read=int,
        ),
    ),
)
