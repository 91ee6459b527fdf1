"""Compute in 16 bits throughout: every operation on tensors rounds its result.

Tensors of rank 1 and more have the narrow type. Scalars stay float32: the learning rate, bias corrections, norms, the
loss. In detail:

- Reductions, matrix products and convolutions accumulate in float32 and round the result.
- A constant is rounded to the nearest finite value.
- Exports keep the types of their arguments and results. `lower-storage` changes those of the state.
- Loops and branches hand values over in float32, after rounding.
- A function with `__in_float32_` in its name, and what it calls, computes in float32, and its results are rounded. An
  optimizer's iterations for an inverse root need it.
- `init`, and any function that makes floats of random bits, computes in float32 with all that it calls, and its results
  are rounded. So do the functions that call these, if they have no contraction: samplers of other distributions. A
  uniform number in [0, 1) that is rounded to nearest is often 1, and the inverse error function of 1 is infinite. In
  bfloat16 such numbers are rounded towards zero where another function takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from sonew_compiled import contract
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.calls import callee, calls, reachable
from sonew_compiled.passes.ir.convert import convert, narrowed, source_in
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import element_type, has_element, with_element
from sonew_compiled.passes.ir.uses import Readers, operations_in
from sonew_compiled.passes.record import Option, Pass, read_half

IN_FLOAT32 = contract.merged_name("", contract.IN_FLOAT32)
"""The part that the name of a function has if it computes in float32."""

_LARGEST = {"bf16": float.fromhex("0x1.fep127"), "f16": 65504.0}

# Operations that only hand their operands over, or must keep the width of these.
_LEFT_ALONE = frozenset((
    "func.call", "func.return", "stablehlo.bitcast_convert", "stablehlo.case", "stablehlo.custom_call", "stablehlo.if",
    "stablehlo.return", "stablehlo.while",
))  # fmt: skip

# Operations that compute in float32 and round their results: sums, and operations with a body.
_WIDE = frozenset((
    *CONTRACTIONS, "stablehlo.iota", "stablehlo.map", "stablehlo.reduce", "stablehlo.reduce_window",
    "stablehlo.scatter", "stablehlo.select_and_scatter", "stablehlo.sort",
))  # fmt: skip


def retype(module: ir.Module, *, dtype: str) -> None:
    """Make float32 tensors of rank 1 and more tensors of `dtype`."""
    narrow = ir.Type.parse(dtype)
    wide = [f.name for f in functions(module) if IN_FLOAT32 in f.name]
    of_bits = {f.name for f in functions(module) if _makes_floats_of_bits(f)}
    kept = reachable(module, [contract.INIT, *wide, *_samplers(module, of_bits)])
    cut = of_bits if dtype == "bf16" else set()
    changed = [function for function in functions(module) if function.name not in kept]
    for function in changed:
        if not function.is_public:
            for index, argument in enumerate(function.arguments):
                if _is_wide_tensor(argument):
                    function.retype_argument(index, narrow)
    for function in changed:
        for op in operations_in(function.op):
            _retype(op, narrow, _LARGEST[dtype])
        for call in calls(function):
            _retype_call(call, narrow, kept, cut)
        if not function.is_public:
            for index, value in enumerate(function.returned):
                if _is_wide_tensor(value):
                    function.retype_result(index, narrow)
        _fold_conversions(function)
        function.finish()


def _retype(op: ir.Operation, narrow: ir.Type, largest: float) -> None:
    """Make one operation compute in the narrow type, and leave its operands' producers and its readers unchanged."""
    values = [*op.operands, *op.results]
    if op.name in _LEFT_ALONE or not any(_is_wide_tensor(value) for value in values) or _is_ours(op, narrow):
        return
    if op.name == "stablehlo.constant":
        _retype_constant(op, narrow, largest)
        return
    if op.name not in _WIDE or op.name in CONTRACTIONS:
        operands = list(op.operands)
        with ir.InsertionPoint(op):
            for index, operand in enumerate(operands):
                if has_element(operand, ir.F32Type.get()):
                    first = operands.index(operand)
                    op.operands[index] = op.operands[first] if first < index else narrowed(operand, narrow)
    for result in op.results:
        if op.name not in _WIDE and has_element(result, ir.F32Type.get()):
            result.set_type(with_element(result, narrow))
            _replace_after(op, result, lambda value: convert(value, ir.F32Type.get()))
        elif _is_wide_tensor(result):
            _replace_after(op, result, lambda value: convert(convert(value, narrow), ir.F32Type.get()))


def _retype_constant(op: ir.Operation, narrow: ir.Type, largest: float) -> None:
    """Round a constant: a splat right here, any other by a conversion."""
    value = ir.DenseElementsAttr(op.attributes["value"])
    if value.is_splat:
        number = ir.FloatAttr(value.get_splat_value()).value
        rounded = number if not np.isfinite(number) else max(-largest, min(largest, number))
        kind = with_element(op.results[0], narrow)
        with ir.InsertionPoint(op):
            splat = ir.DenseElementsAttr.get_splat(kind, ir.FloatAttr.get(narrow, rounded))
            made = ir.Operation.create("stablehlo.constant", results=[kind], attributes={"value": splat})
            op.results[0].replace_all_uses_with(convert(made.result, ir.F32Type.get()))
        op.erase()
    else:
        _replace_after(op, op.results[0], lambda value: convert(convert(value, narrow), ir.F32Type.get()))


def _retype_call(call: ir.Operation, narrow: ir.Type, kept: set[str], cut: set[str]) -> None:
    """Give a call the operand and result types of the function that it calls; results of those in `cut` are cut."""
    if callee(call) in kept:
        first = _cut if callee(call) in cut else lambda value: value
        for result in call.results:
            if _is_wide_tensor(result):
                _replace_after(call, result, lambda value: convert(convert(first(value), narrow), ir.F32Type.get()))
        return
    with ir.InsertionPoint(call):
        for index, operand in enumerate(call.operands):
            if _is_wide_tensor(operand):
                call.operands[index] = narrowed(operand, narrow)
    for result in call.results:
        if _is_wide_tensor(result):
            result.set_type(with_element(result, narrow))
            _replace_after(call, result, lambda value: convert(value, ir.F32Type.get()))


def _replace_after(op: ir.Operation, value: ir.Value, make: Callable[[ir.Value], ir.Value]) -> None:
    """Make the readers of an operation's result read `make(result)`."""
    readers = Readers(value)
    with ir.InsertionPoint.after(op):
        readers.redirect(make(value))


def _is_wide_tensor(value: ir.Value) -> bool:
    return has_element(value, ir.F32Type.get()) and ir.ShapedType(value.type).rank > 0


def _is_ours(op: ir.Operation, narrow: ir.Type) -> bool:
    """Whether this is one of the conversions between the two types."""
    return op.name == "stablehlo.convert" and (
        has_element(op.operands[0], narrow) or has_element(op.results[0], narrow)
    )


def _samplers(module: ir.Module, of_bits: set[str]) -> set[str]:
    """These functions, and those that call one of them and have no contraction, themselves or in what they call."""
    by_name = {function.name: function for function in functions(module)}
    found = set(of_bits)
    while True:
        callers = {
            name
            for name, function in by_name.items()
            if name not in found
            and not function.is_public
            and any(callee(call) in found for call in calls(function))
            and not _contracts(by_name[each] for each in reachable(module, [name]))
        }
        if not callers:
            return found
        found |= callers


def _contracts(among: Iterable[Function]) -> bool:
    return any(op.name in CONTRACTIONS for function in among for op in operations_in(function.op))


def _cut(value: ir.Value) -> ir.Value:
    """The numbers without the digits that bfloat16 does not hold."""
    bits = build.elementwise("and", build.bitcast(value, build.u32()), 0xFFFF0000)
    return build.bitcast(bits, ir.F32Type.get())


def _makes_floats_of_bits(function: Function) -> bool:
    wide = ir.F32Type.get()
    return any(
        op.name == "stablehlo.bitcast_convert" and has_element(op.results[0], wide) for op in operations_in(function.op)
    )


def _fold_conversions(function: Function) -> None:
    """Remove pairs of conversions that cancel, and conversions that nothing reads."""
    conversions = [op for op in operations_in(function.op) if op.name == "stablehlo.convert"]
    for op in conversions:
        source = source_in(op.operands[0], element_type(op.results[0]))
        if has_element(op.operands[0], ir.F32Type.get()) and source is not None:
            op.results[0].replace_all_uses_with(source)
    for op in reversed(conversions):
        if not list(op.results[0].uses):
            op.erase()


PASS = Pass(
    name="retype",
    summary="compute in 16 bits",
    description=__doc__,
    run=retype,
    options=(
        Option(
            name="dtype",
            default="bf16",
            help="the type of the computation, bf16 or f16",
            read=read_half,
        ),
    ),
)
