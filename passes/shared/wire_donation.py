"""Give results the buffers of donated arguments.

`sonew.donate` on an argument means that the caller gives its buffer up, and the result of the same `sonew.name` may
take it. `tf.aliasing_output` tells this to XLA, and to IREE, which reads it as `iree.abi.output`.

XLA copies an argument that is still needed when its buffer is overwritten. IREE 3.13 does not: it writes the result as
soon as it is ready, and a later or concurrent dispatch reads wrong numbers. So the pass aliases an argument only if all
its readers are elementwise operations that lead to its own result; it follows calls. The moments of an optimizer are
such arguments. Weights are not, since the backward pass reads them: their results get buffers of their own, and
`jax.buffer_donor` leaves the choice to XLA.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sonew_compiled.contract import DONATE_ATTRIBUTE, NAME_ATTRIBUTE
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.attributes import ALIASED, GIVEN_UP, text_attribute
from sonew_compiled.passes.ir.calls import callee
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.record import Pass

# Operations each of whose result elements depends only on the operands' elements at the same row-major index, if
# operands and result have as many elements.
# fmt: off
_ELEMENTWISE = frozenset((
    "stablehlo.abs", "stablehlo.add", "stablehlo.and", "stablehlo.atan2", "stablehlo.bitcast_convert",
    "stablehlo.cbrt", "stablehlo.ceil", "stablehlo.clamp", "stablehlo.compare", "stablehlo.complex",
    "stablehlo.convert", "stablehlo.cosine", "stablehlo.count_leading_zeros", "stablehlo.divide",
    "stablehlo.exponential", "stablehlo.exponential_minus_one", "stablehlo.floor", "stablehlo.imag",
    "stablehlo.is_finite", "stablehlo.log", "stablehlo.log_plus_one", "stablehlo.logistic", "stablehlo.maximum",
    "stablehlo.minimum", "stablehlo.multiply", "stablehlo.negate", "stablehlo.not", "stablehlo.or",
    "stablehlo.popcnt", "stablehlo.power", "stablehlo.real", "stablehlo.reduce_precision", "stablehlo.remainder",
    "stablehlo.reshape", "stablehlo.round_nearest_afz", "stablehlo.round_nearest_even", "stablehlo.rsqrt",
    "stablehlo.select", "stablehlo.shift_left", "stablehlo.shift_right_arithmetic", "stablehlo.shift_right_logical",
    "stablehlo.sign", "stablehlo.sine", "stablehlo.sqrt", "stablehlo.subtract", "stablehlo.tan", "stablehlo.tanh",
    "stablehlo.xor",
))
# fmt: on


# A value and the calls, outermost first, that lead into its function.
_Place: TypeAlias = tuple[tuple[ir.Operation, ...], ir.Value]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Body:
    """The values that enter a function and those that leave it."""

    arguments: Sequence[ir.Value]
    returned: Sequence[ir.Value]


def wire_donation(module: ir.Module) -> None:
    """Turn every `sonew.donate` into `tf.aliasing_output` where that is safe, and into `jax.buffer_donor` elsewhere.

    Raises:
        UsageError: a donated argument has no name, or no result of its name and type.
    """
    found = functions(module)
    bodies = {each.name: _Body(arguments=each.arguments, returned=each.returned) for each in found}
    for function in found:
        if any(DONATE_ATTRIBUTE in attributes for attributes in function.argument_attributes):
            _wire_function(function, bodies)


def _wire_function(function: Function, bodies: Mapping[str, _Body]) -> None:
    body = bodies[function.name]
    names = [text_attribute(each, NAME_ATTRIBUTE) for each in function.result_attributes]
    stored = [_origin(((), value), bodies) for value in body.returned]
    for index, attributes in enumerate(function.argument_attributes):
        if DONATE_ATTRIBUTE not in attributes:
            continue
        del attributes[DONATE_ATTRIBUTE]
        result = _result_of(function, index, names)
        # If one value were two results, the second would be read from the buffer of the first.
        is_single = stored.count(stored[result]) == 1
        if is_single and _leads_only_to(((), body.arguments[index]), stored[result], bodies):
            attributes[ALIASED] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), result)
        else:
            attributes[GIVEN_UP] = ir.BoolAttr.get(True)
    function.finish()


def _result_of(function: Function, index: int, names: Sequence[str]) -> int:
    """The index of the result that has the name of a donated argument; its type must be the argument's."""
    where = f"wire-donation: argument {index} of @{function.name}"
    name = text_attribute(function.argument_attributes[index], NAME_ATTRIBUTE)
    if not name:
        raise UsageError(f"{where} is donated but has no {NAME_ATTRIBUTE}")
    if name not in names:
        raise UsageError(f"{where}, {name!r}, is donated but there is no result of that name")
    result = names.index(name)
    had, got = function.arguments[index].type, function.returned[result].type
    if had != got:
        raise UsageError(f"{where}, {name!r}, is donated as {had} but the result of that name is {got}")
    return result


def _leads_only_to(start: _Place, end: _Place, bodies: Mapping[str, _Body]) -> bool:
    """Whether all readers of a value are elementwise operations that lead to one other value alone."""
    seen: set[_Place] = set()
    pending: list[_Place] = [start]
    while pending:
        place = pending.pop()
        if place in seen or place == end:
            continue
        seen.add(place)
        calls, value = place
        for use in value.uses:
            op = use.owner.operation
            if op.name == "func.call":
                pending.append(((*calls, op), bodies[callee(op)].arguments[use.operand_number]))
            elif op.name == "func.return" and calls:
                pending.append((calls[:-1], calls[-1].results[use.operand_number]))
            elif op.name in _ELEMENTWISE and _size(op.results[0]) == _size(start[1]):
                pending.append((calls, op.results[0]))
            else:
                return False
    return True


def _origin(place: _Place, bodies: Mapping[str, _Body]) -> _Place:
    """Return the place where the value is computed, behind calls, and behind reshapes, which move nothing."""
    calls, value = place
    while True:
        owner = value.owner
        if isinstance(owner, ir.Block):
            if not calls:
                return calls, value
            calls, value = calls[:-1], calls[-1].operands[ir.BlockArgument(value).arg_number]
        elif owner.operation.name == "stablehlo.reshape":
            value = owner.operation.operands[0]
        elif owner.operation.name == "func.call":
            body = bodies[callee(owner.operation)]
            calls, value = (*calls, owner.operation), body.returned[ir.OpResult(value).result_number]
        else:
            return calls, value


def _size(value: ir.Value) -> int:
    return math.prod(shape_of(value))


PASS = Pass(
    name="wire-donation",
    summary="give results the buffers of donated arguments",
    description=__doc__,
    run=wire_donation,
)
