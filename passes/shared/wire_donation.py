"""Give results the buffers of donated arguments.

`sonew.donate` on an argument says that its caller gives it up. The result of the same `sonew.name` may then take its
buffer, which `tf.aliasing_output` says to XLA, and to IREE, which reads it as `iree.abi.output`.

XLA copies where the argument is still needed. IREE 3.13 does not: it writes the result into the buffer whenever the
result is ready, although another dispatch, perhaps a concurrent one, is still to read the argument, and the answer is
wrong. So only those arguments are aliased that nothing reads but the element-wise computation of their own result: it
reads an element, if at all, before it writes it. The moments of an optimizer are such. Weights are not, since the
backward pass reads them: their results get buffers of their own, and `jax.buffer_donor` leaves XLA the choice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.attributes import ALIASED, GIVEN_UP
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.record import Pass

# Operations whose every result element depends only on the elements of the operands at the same place, counted in
# row-major order, if operands and result have as many elements.
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


# A value as a call sees it: the calls that lead into the function that has it, outermost first, and the value.
_Place: TypeAlias = tuple[tuple[ir.Operation, ...], ir.Value]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Body:
    """Where values enter a function and leave it."""

    arguments: Sequence[ir.Value]
    returned: Sequence[ir.Value]

    @classmethod
    def of(cls, function: ir.OpView) -> _Body:
        block = function.operation.regions[0].blocks[0]
        *_, last = block.operations
        return cls(arguments=list(block.arguments), returned=list(last.operation.operands))


def wire_donation(module: ir.Module) -> None:
    """Turn every `sonew.donate` into `tf.aliasing_output` where that is safe, and into `jax.buffer_donor` elsewhere.

    Raises:
        UsageError: a donated argument has no name, or no result of its name and type.
    """
    functions = [f for f in module.body.operations if f.operation.name == "func.func"]
    bodies = {_symbol(f): _Body.of(f) for f in functions}
    for function in functions:
        if "arg_attrs" in function.attributes:
            _wire_function(function, bodies)


def _wire_function(function: ir.OpView, bodies: Mapping[str, _Body]) -> None:
    arguments = [dict(_items(each)) for each in function.attributes["arg_attrs"]]
    donated = [index for index, attributes in enumerate(arguments) if "sonew.donate" in attributes]
    if not donated:
        return
    function_type = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
    results = _result_names(function)
    body = bodies[_symbol(function)]
    stored = [_origin(((), value), bodies) for value in body.returned]
    for index in donated:
        attributes = arguments[index]
        del attributes["sonew.donate"]
        where = f"wire-donation: argument {index} of @{_symbol(function)}"
        if "sonew.name" not in attributes:
            raise UsageError(f"{where} is donated but has no sonew.name")
        name = ir.StringAttr(attributes["sonew.name"]).value
        if name not in results:
            raise UsageError(f"{where}, {name!r}, is donated but there is no result of that name")
        result = results.index(name)
        had, got = function_type.inputs[index], function_type.results[result]
        if had != got:
            raise UsageError(f"{where}, {name!r}, is donated as {had} but the result of that name is {got}")
        # Of two results from one value, the second would be read from the buffer of the first.
        single = stored.count(stored[result]) == 1
        if single and _leads_only_to(((), body.arguments[index]), stored[result], bodies):
            attributes[ALIASED] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), result)
        else:
            attributes[GIVEN_UP] = ir.BoolAttr.get(True)
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(each) for each in arguments])


def _leads_only_to(start: _Place, end: _Place, bodies: Mapping[str, _Body]) -> bool:
    """Tell whether nothing reads a value but element-wise operations that lead to another one alone."""
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
                pending.append(((*calls, op), _callee(op, bodies).arguments[use.operand_number]))
            elif op.name == "func.return" and calls:
                pending.append((calls[:-1], calls[-1].results[use.operand_number]))
            elif op.name in _ELEMENTWISE and _size(op.results[0]) == _size(start[1]):
                pending.append((calls, op.results[0]))
            else:
                return False
    return True


def _origin(place: _Place, bodies: Mapping[str, _Body]) -> _Place:
    """Return the place that computes the value: through calls, and through reshapes, which move nothing."""
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
            callee = _callee(owner.operation, bodies)
            calls, value = (*calls, owner.operation), callee.returned[ir.OpResult(value).result_number]
        else:
            return calls, value


def _callee(call: ir.Operation, bodies: Mapping[str, _Body]) -> _Body:
    return bodies[ir.FlatSymbolRefAttr(call.attributes["callee"]).value]


def _size(value: ir.Value) -> int:
    return math.prod(ir.ShapedType(value.type).shape)


def _result_names(function: ir.OpView) -> list[str | None]:
    if "res_attrs" not in function.attributes:
        return []
    every = [dict(_items(each)) for each in function.attributes["res_attrs"]]
    return [ir.StringAttr(each["sonew.name"]).value if "sonew.name" in each else None for each in every]


def _items(attributes: ir.Attribute) -> list[tuple[str, ir.Attribute]]:
    return [(each.name, each.attr) for each in ir.DictAttr(attributes)]


def _symbol(op: ir.OpView) -> str:
    return str(ir.StringAttr(op.attributes["sym_name"]).value)


PASS = Pass(
    name="wire-donation",
    summary="give results the buffers of donated arguments",
    description=__doc__,
    run=wire_donation,
)
