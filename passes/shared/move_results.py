"""Change what float32 computes in its last places, by a seed that becomes the last argument.

The check before a bundle is written asks how far JAX's own results move with the last places of the inputs. Some never
do: a number of 16 bits has no such places, and where all gradients of a matrix are equal, so are their products, in
whatever way the inputs change. But operations round, each in its own way, and another compiler rounds otherwise. So the
change comes after each operation that rounds to float32:

    x + y  becomes  (x + y) * (1 + noise(seed, index) * 2^-21)        noise from -1 to 1

An operation that chooses among its operands, such as `maximum`, does not round: what it gives must stay equal to one of
them.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.calls import inline_all_calls
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, has_element, is_half, shape_of
from sonew_compiled.passes.ir.uses import Readers, operations_in
from sonew_compiled.passes.record import Pass

_LAST_PLACES = 2.0**-21
_ROUNDING = frozenset(
    f"stablehlo.{name}"
    for name in (
        *("add", "subtract", "multiply", "divide", "power", "atan2", "sqrt", "rsqrt", "cbrt", "sine", "cosine", "tan"),
        *("tanh", "logistic", "exponential", "exponential_minus_one", "log", "log_plus_one"),
        *("dot_general", "convolution"),
    )
)
# These round if their region does.
_REDUCING = ("stablehlo.reduce", "stablehlo.reduce_window", "stablehlo.scatter", "stablehlo.select_and_scatter")
# The regions of other operations compute on single elements.
_ENCLOSING = ("func.func", "stablehlo.case", "stablehlo.if", "stablehlo.while")


def move_results(module: ir.Module) -> None:
    """Inline all calls, and add to each export the argument, and the change to each result that is rounded."""
    inline_all_calls(module)
    for function in functions(module):
        seed = function.add_argument(ir.RankedTensorType.get([], ir.IntegerType.get_signless(32)), {})
        rounding = [op for op in operations_in(function.op) if op.parent.name in _ENCLOSING and _rounds(op)]
        for number, op in enumerate(rounding):
            with ir.InsertionPoint.after(op):
                for result in op.results:
                    if has_element(result, ir.F32Type.get()):
                        readers = Readers(result)
                        readers.redirect(build.elementwise("multiply", result, _factors(result, seed, number)))
        function.finish()


def _rounds(op: ir.Operation) -> bool:
    if op.name == "stablehlo.convert":
        return is_half(element_type(op.operands[0]))
    if op.name in _REDUCING:
        return any(each.operation.name in _ROUNDING for region in op.regions for each in region.blocks[0].operations)
    return op.name in _ROUNDING


def _factors(value: ir.Value, seed: ir.Value, number: int) -> ir.Value:
    """A number for each element that differs from one in the last places, by the seed and the operation's number."""
    shape = shape_of(value)
    key = build.elementwise("multiply", build.bitcast(seed, build.u32()), 0x846CA68B)
    key = build.broadcast(build.elementwise("add", key, number * 0x9E3779B1 & 0xFFFFFFFF), shape)
    mixed = build.elementwise("xor", build.elementwise("multiply", build.linear_index(shape), 0x7FEB352D), key)
    for factor in (0x9E3779B1, 0x85EBCA6B):
        mixed = build.elementwise("multiply", build.elementwise("xor", mixed, _upper(mixed, 15)), factor)
    numbers = convert(_upper(mixed, 8), ir.F32Type.get())  # below 2^24, so exact
    noise = build.elementwise("multiply", numbers, build.like(_LAST_PLACES * 2.0**-23, numbers))
    return build.elementwise("add", noise, build.like(1 - _LAST_PLACES, noise))


def _upper(value: ir.Value, cut: int) -> ir.Value:
    return build.elementwise("shift_right_logical", value, cut)


PASS = Pass(
    name="move-results",
    summary="change what float32 computes in its last places, for the check of a bundle",
    description=__doc__,
    run=move_results,
)
