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

import math
from collections.abc import Mapping

from sonew_compiled.errors import UsageError
from sonew_compiled.passes._mlir import ir
from sonew_compiled.passes._pass import Pass

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


def wire_donation(module: ir.Module) -> None:
    """Turn every `sonew.donate` into `tf.aliasing_output` where that is safe, and into `jax.buffer_donor` elsewhere.

    Raises:
        UsageError: a donated argument has no name, or no result of its name and type.
    """
    functions = {_symbol(f): f for f in module.body.operations if f.operation.name == "func.func"}
    for function in functions.values():
        if "arg_attrs" in function.attributes:
            _wire_function(function, functions)


def _wire_function(function: ir.OpView, functions: Mapping[str, ir.OpView]) -> None:
    arguments = [dict(_items(each)) for each in function.attributes["arg_attrs"]]
    donated = [index for index, attributes in enumerate(arguments) if "sonew.donate" in attributes]
    if not donated:
        return
    function_type = ir.FunctionType(ir.TypeAttr(function.attributes["function_type"]).value)
    results = _result_names(function)
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
        if _is_updated_in_place(function, index, result, functions):
            attributes["tf.aliasing_output"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), result)
        else:
            attributes["jax.buffer_donor"] = ir.BoolAttr.get(True)
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(each) for each in arguments])


def _is_updated_in_place(function: ir.OpView, index: int, result: int, functions: Mapping[str, ir.OpView]) -> bool:
    """Tell whether nothing reads the argument but element-wise operations that lead to this result alone."""
    block = _body(function)
    *_, last = block.operations
    stored = [_before_reshapes(value) for value in last.operation.operands]
    if stored.count(stored[result]) != 1:
        return False  # two results from one value: the second would be read from the buffer of the first
    return _reached_results(block.arguments[index], stored[result], functions) == set()


def _reached_results(start: ir.Value, end: ir.Value | None, functions: Mapping[str, ir.OpView]) -> set[int] | None:
    """Follow a value through element-wise operations, and no further than to `end`.

    Returns:
        The positions of the results of the enclosing function that are reached, or None if something else is: an
        operation that is not element-wise.
    """
    reached: set[int] = set()
    seen: set[ir.Value] = set()
    pending = [start]
    while pending:
        value = pending.pop()
        if value in seen or (end is not None and value == end):
            continue
        seen.add(value)
        for use in value.uses:
            op = use.owner.operation
            if op.name == "func.return":
                reached.add(use.operand_number)
            elif op.name == "func.call":
                callee = functions[ir.FlatSymbolRefAttr(op.attributes["callee"]).value]
                inner = _reached_results(_body(callee).arguments[use.operand_number], None, functions)
                if inner is None:
                    return None
                pending.extend(op.results[position] for position in sorted(inner))
            elif op.name in _ELEMENTWISE and _size(op.results[0]) == _size(start):
                pending.append(op.results[0])
            else:
                return None
    return reached


def _before_reshapes(value: ir.Value) -> ir.Value:
    """Return what the value is another shape of."""
    while not isinstance(value.owner, ir.Block) and value.owner.operation.name == "stablehlo.reshape":
        value = value.owner.operation.operands[0]
    return value


def _size(value: ir.Value) -> int:
    return math.prod(ir.ShapedType(value.type).shape)


def _result_names(function: ir.OpView) -> list[str | None]:
    if "res_attrs" not in function.attributes:
        return []
    every = [dict(_items(each)) for each in function.attributes["res_attrs"]]
    return [ir.StringAttr(each["sonew.name"]).value if "sonew.name" in each else None for each in every]


def _body(function: ir.OpView) -> ir.Block:
    return function.operation.regions[0].blocks[0]


def _items(attributes: ir.Attribute) -> list[tuple[str, ir.Attribute]]:
    return [(each.name, each.attr) for each in ir.DictAttr(attributes)]


def _symbol(op: ir.OpView) -> str:
    return str(ir.StringAttr(op.attributes["sym_name"]).value)


PASS = Pass(name="wire-donation", summary="give results the buffers of donated arguments", run=wire_donation)
