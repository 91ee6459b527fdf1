"""Drop the roundings of numbers that have 16 bits anyway.

`emulate-arithmetic` widens the operands of each operation and rounds its result. A sign, or the larger of two numbers
of 16 bits, is a number of 16 bits itself, so what is computed next reads it as it is. A rounding and the widening after
it take three instructions even where one of them rounds, and each has to wait for the one before.

    a = round(abs(widen(x)))                a = round(abs(widen(x)))
    y = round(-widen(a))         becomes    y = round(-abs(widen(x)))

The rounding stays for those that read 16 bits.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.calls import inline_calls
from sonew_compiled.passes.ir.convert import widened_from
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, has_element, is_half
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass

# Operations whose results are among the numbers that they get, signs aside.
_EXACT = frozenset(f"stablehlo.{name}" for name in ("abs", "clamp", "maximum", "minimum", "negate"))


def drop_roundings(module: ir.Module) -> None:
    """Let what widens a rounded number read the number itself, if the rounding does not change it.

    Functions are inlined into the exports if there is a rounding.
    """
    if not any(_rounds(op) for op in operations_in(module.operation)):
        return
    inline_calls(module)
    # The float32 values that are numbers of a 16-bit type, each with that type.
    exact: dict[ir.Value, ir.Type] = {}
    for op in operations_in(module.operation):
        if op.name in _EXACT:
            kinds = {exact.get(each) for each in op.operands}
            kind = kinds.pop() if len(kinds) == 1 else None
            if kind is not None:
                exact[op.results[0]] = kind
        elif _widens(op):
            exact[op.results[0]] = element_type(op.operands[0])
            number = widened_from(op.operands[0])
            if number is not None and exact.get(number) == element_type(op.operands[0]):
                op.results[0].replace_all_uses_with(number)
    for op in reversed(operations_in(module.operation)):
        if (_rounds(op) or _widens(op)) and not list(op.results[0].uses):
            op.erase()


def _rounds(op: ir.Operation) -> bool:
    return _converts(op) and has_element(op.operands[0], ir.F32Type.get()) and is_half(element_type(op.results[0]))


def _widens(op: ir.Operation) -> bool:
    return _converts(op) and is_half(element_type(op.operands[0])) and has_element(op.results[0], ir.F32Type.get())


def _converts(op: ir.Operation) -> bool:
    return bool(op.name == "stablehlo.convert")


PASS = Pass(
    name="drop-roundings",
    summary="drop the roundings of numbers that have 16 bits anyway",
    description=__doc__,
    run=drop_roundings,
)
"""The pass."""
