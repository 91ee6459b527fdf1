"""Copies that a compiler can neither remove nor merge."""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import ALIASED
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of, width_of


class Copies:
    """Makes copies of values within one function, each different from every other.

    A copy selects the value if a hidden number is below the copy's own number, and another value otherwise. The hidden
    number is always zero, but it is computed from one of the function's arguments, and a compiler would have to know
    that no square has the bit of two. So it cannot replace the copy by the value or by another copy.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self._number: ir.Value | None = None
        self._count = 0

    def of(self, value: ir.Value) -> ir.Value:
        """A copy of the value, a tensor of any type, at the insertion point."""
        if self._number is None:
            with ir.InsertionPoint.at_block_begin(self._function.block):
                self._number = _hidden_zero(self._function)
        self._count += 1
        above = build.compare("LT", self._number, build.like(self._count, self._number), "SIGNED")
        shape = shape_of(value)
        return build.select(build.broadcast(above, shape) if shape else above, value, _other(value))


def _other(value: ir.Value) -> ir.Value:
    """A tensor that differs from the value in every element, so that the select cannot be folded for a known value."""
    opposite = "not" if isinstance(element_type(value), ir.IntegerType) else "negate"
    return build.elementwise(opposite, value)


def _hidden_zero(function: Function) -> ir.Value:
    """A scalar that is 0 for any arguments, at the insertion point."""
    # An aliased argument may be overwritten before the last copy is made.
    plain = [
        argument
        for argument, attributes in zip(function.arguments, function.argument_attributes, strict=True)
        if ALIASED not in attributes
        and not isinstance(element_type(argument), ir.ComplexType)
        and 0 not in shape_of(argument)
    ]
    i32 = ir.IntegerType.get_signless(32)
    if not plain:
        (held,) = build.apart([build.constant(0, i32)])
        return held
    number = min(plain, key=lambda argument: len(shape_of(argument)))
    if shape := shape_of(number):
        number = build.reshape(build.slice_of(number, [0] * len(shape), [1] * len(shape)), [])
    kind = element_type(number)
    if not isinstance(kind, ir.IntegerType):
        number = build.bitcast(number, ir.IntegerType.get_signless(width_of(kind)))
    if element_type(number) != i32:
        number = convert(number, i32)
    return build.elementwise("and", build.elementwise("multiply", number, number), 2)
