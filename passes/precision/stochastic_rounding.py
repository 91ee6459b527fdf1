"""Round tensors of the state to bfloat16 stochastically, by a rule that every target computes to the same bit.

With rounding to nearest, a weight does not move if the update is less than half of its last place. Stochastic rounding
goes up with a probability equal to the part that is cut off, so that the mean of the rounded number is the number.

The noise is a hash of counters, in unsigned 32-bit arithmetic that wraps around. The hash `mix(x)` is

    x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16

Its inputs count from 0. `step` is the number of steps before this one. `tensor` is the position of the tensor among
those of its roles in the results of `train_step`. `index` is the row-major index of the element. Then

    noise = mix(mix(index) ^ mix(mix(step + 0x9e3779b9) ^ tensor)) >> 16                     (16 bits)
    |bfloat16| = min(|float32 as an integer| + noise, 0x7f7fffff) >> 16                      (the sign stays)

So a value that bfloat16 can hold is not changed, and a finite value stays finite. Infinities and NaN are kept. `mix` is
a finalizer of C. Wellons' hash-prospector ("lowbias32").
"""

from __future__ import annotations

from collections.abc import Collection

from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import role_indices
from sonew_compiled.passes.ir.convert import widened_from
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.rounding import bf16_of
from sonew_compiled.passes.ir.state import add_state, functions_of_state, state_attributes
from sonew_compiled.passes.ir.types import has_element, shape_of
from sonew_compiled.passes.record import Option, Pass, read_roles

STEP = "precision/step"
"""The tensor that counts the steps."""


def stochastic_rounding(module: ir.Module, *, roles: Collection[str]) -> None:
    """Round each result of `train_step` that has one of these roles stochastically as it leaves.

    Raises:
        UsageError: there is no `init` or `train_step`, or no such rounding. `lower-storage` makes the roundings.
    """
    init, step = functions_of_state(module, "stochastic-rounding")
    found = list(_roundings(step, roles))
    if not found:
        raise UsageError("stochastic-rounding: no result of train_step is rounded to bf16; run lower-storage before")
    count = add_state(init, step, STEP, 0, ir.IntegerType.get_signless(32))
    with ir.InsertionPoint(step.terminator):
        first = _mix(build.elementwise("add", build.bitcast(count, build.u32()), 0x9E3779B9))
        for tensor, result, value in found:
            key = _mix(build.elementwise("xor", first, tensor))
            old = step.terminator.operands[result].owner.operation
            step.terminator.operands[result] = _rounded(value, key)
            if not list(old.results[0].uses):
                old.erase()
        after = build.elementwise("add", count, 1)
    step.add_result(after, state_attributes(STEP))
    init.finish()
    step.finish()


def _roundings(step: Function, roles: Collection[str]) -> list[tuple[int, int, ir.Value]]:
    """For each rounding to nearest, the tensor's number, the result's index and the float32 value."""
    found = []
    for tensor, result in enumerate(role_indices(step.result_attributes, roles)):
        rounded = step.returned[result]
        value = widened_from(rounded)
        if has_element(rounded, ir.BF16Type.get()) and value is not None and has_element(value, ir.F32Type.get()):
            found.append((tensor, result, value))
    return found


def _mix(x: ir.Value) -> ir.Value:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = build.elementwise("xor", x, build.elementwise("shift_right_logical", x, shift))
        x = build.elementwise("multiply", x, factor)
    return build.elementwise("xor", x, build.elementwise("shift_right_logical", x, 16))


def _rounded(value: ir.Value, key: ir.Value) -> ir.Value:
    shape = shape_of(value)
    index = build.linear_index(shape)
    mixed = _mix(build.elementwise("xor", _mix(index), build.broadcast(key, shape)))
    noise = build.elementwise("shift_right_logical", mixed, 16)
    bits = build.bitcast(value, build.u32())
    sign = build.elementwise("and", bits, 0x80000000)
    magnitude = build.elementwise("and", bits, 0x7FFFFFFF)
    infinity = build.like(0x7F800000, magnitude)
    finite = build.elementwise("minimum", build.elementwise("add", magnitude, noise), 0x7F7FFFFF)
    # A NaN whose only bits are cut off would become an infinity. It becomes the default NaN instead.
    nan = build.compare("GT", magnitude, infinity, "UNSIGNED")
    special = build.select(nan, build.like(0x7FC00000, magnitude), infinity)
    kept = build.select(build.compare("LT", magnitude, infinity, "UNSIGNED"), finite, special)
    return bf16_of(build.elementwise("or", kept, sign))


PASS = Pass(
    name="stochastic-rounding",
    summary="round tensors of the state to bf16 without bias",
    description=__doc__,
    run=stochastic_rounding,
    options=(
        Option(
            name="roles",
            default=(Role.PARAMETER,),
            help="which tensors of the state, by their `sonew.role`",
            read=read_roles,
        ),
    ),
)
