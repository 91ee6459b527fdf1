"""Change what float32 computes of 16-bit numbers in its last places, by a seed that becomes the last argument.

The check before a bundle is written asks how far JAX's own results move with the last places of the inputs. A number
of 16 bits, be it stored or rounded before a product, has no such places, but what is computed from it in float32 does:
its products are summed in another order elsewhere. So the change comes after the widening, or after the product:

    convert(x)  becomes  convert(x) * (1 + noise(seed, index) * 2^-21)        noise from -1 to 1
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
_WIDENING = ("stablehlo.convert", "stablehlo.dot_general", "stablehlo.convolution")
# The regions of other operations compute on single elements.
_ENCLOSING = ("func.func", "stablehlo.case", "stablehlo.if", "stablehlo.while")


def move_widened(module: ir.Module) -> None:
    """Inline all calls, and add to each export the argument, and the change to what it widens or multiplies."""
    inline_all_calls(module)
    for function in functions(module):
        seed = function.add_argument(ir.RankedTensorType.get([], ir.IntegerType.get_signless(32)), {})
        for op in operations_in(function.op):
            if _widens(op) and op.parent.name in _ENCLOSING:
                readers = Readers(op.results[0])
                with ir.InsertionPoint.after(op):
                    readers.redirect(build.elementwise("multiply", op.results[0], _factors(op.results[0], seed)))
        function.finish()


def _widens(op: ir.Operation) -> bool:
    is_float32 = op.name in _WIDENING and has_element(op.results[0], ir.F32Type.get())
    return is_float32 and is_half(element_type(op.operands[0]))


def _factors(value: ir.Value, seed: ir.Value) -> ir.Value:
    """A number for each element that differs from one in the last places."""
    shape = shape_of(value)
    key = build.broadcast(build.elementwise("multiply", build.bitcast(seed, build.u32()), 0x846CA68B), shape)
    mixed = build.elementwise("xor", build.elementwise("multiply", build.linear_index(shape), 0x7FEB352D), key)
    mixed = build.elementwise("multiply", build.elementwise("xor", mixed, _upper(mixed, 15)), 0x9E3779B1)
    numbers = convert(_upper(mixed, 8), ir.F32Type.get())  # below 2^24, so exact
    noise = build.elementwise("multiply", numbers, build.like(_LAST_PLACES * 2.0**-23, numbers))
    return build.elementwise("add", noise, build.like(1 - _LAST_PLACES, noise))


def _upper(value: ir.Value, cut: int) -> ir.Value:
    return build.elementwise("shift_right_logical", value, cut)


PASS = Pass(
    name="move-widened",
    summary="change in float32's last places what is computed of 16-bit numbers, for the check of a bundle",
    description=__doc__,
    run=move_widened,
)
