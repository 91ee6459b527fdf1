"""Take complex numbers apart into their real and imaginary parts.

IREE 3.13 has no complex constants, and folds reads of the parts of a reshaped complex number wrongly. Each complex
value becomes two real ones, through calls, loops and branches alike:

    multiply(x, y)  becomes  xr yr - xi yi  and  xr yi + xi yr
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build, pairs
from sonew_compiled.passes.ir.convert import converted
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.pairs import Pair
from sonew_compiled.passes.ir.types import element_type, width_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass

_Parts = dict[ir.Value, Pair]

# Operations that act on each part as they act on the number.
_BY_PARTS = frozenset((
    "stablehlo.add", "stablehlo.broadcast_in_dim", "stablehlo.concatenate", "stablehlo.dynamic_slice",
    "stablehlo.dynamic_update_slice", "stablehlo.gather", "stablehlo.negate", "stablehlo.pad", "stablehlo.reshape",
    "stablehlo.reverse", "stablehlo.select", "stablehlo.slice",
    "stablehlo.subtract", "stablehlo.transpose",
))  # fmt: skip

# Operations that hand values over; each complex operand and result becomes two.
_HANDED_OVER = frozenset((
    "func.call", "func.return", "stablehlo.case", "stablehlo.if", "stablehlo.optimization_barrier",
    "stablehlo.return", "stablehlo.while",
))  # fmt: skip

_COMBINING = frozenset(("stablehlo.reduce", "stablehlo.reduce_window", "stablehlo.scatter"))


def split_complex(module: ir.Module) -> None:
    """Make two real tensors of every complex one."""
    every = functions(module)
    if not any(_is_complex(each) for function in every for each in _values(function)):
        return
    for function in every:
        if function.is_public and any(map(_is_complex, (*function.arguments, *function.returned))):
            raise UsageError(
                f"{function.name} takes or gives complex numbers, which no batch or result holds; "
                "give their real and imaginary parts as two arrays"
            )
    for function in every:
        parts: _Parts = {}
        old = _take_arguments(function.block, parts)
        function.argument_attributes = _expanded(function.argument_attributes, old)
        function.result_attributes = _expanded(function.result_attributes, [v.type for v in function.returned])
        _split_block(function.block, parts)
        _drop_arguments(function.block, old)
        function.finish()


def _values(function: Function) -> Iterable[ir.Value]:
    yield from function.arguments
    for op in operations_in(function.op):
        yield from op.results


def _is_complex(value: ir.Value | ir.Type) -> bool:
    kind = value.type if isinstance(value, ir.Value) else value
    return isinstance(kind, ir.RankedTensorType) and isinstance(kind.element_type, ir.ComplexType)


def _real_type(kind: ir.Type) -> ir.Type:
    return ir.RankedTensorType.get(kind.shape, ir.ComplexType(kind.element_type).element_type)


def _expanded(attributes: Sequence[dict[str, ir.Attribute]], kinds: Sequence[ir.Type]) -> list[dict[str, ir.Attribute]]:
    """The attributes of arguments or results after the split, in the order of `_handed`."""
    kept = [each for each, kind in zip(attributes, kinds, strict=True) if not _is_complex(kind)]
    return [*kept, *({} for kind in kinds if _is_complex(kind) for _ in Pair._fields)]


def _handed(values: Iterable[ir.Value], parts: _Parts) -> list[ir.Value]:
    """The values that are handed over in place of these: the real ones in order, then the parts of the others."""
    values = list(values)
    kept = [each for each in values if not _is_complex(each)]
    return [*kept, *(part for each in values if _is_complex(each) for part in parts[each])]


def _handed_types(kinds: Sequence[ir.Type]) -> list[ir.Type]:
    kept = [each for each in kinds if not _is_complex(each)]
    return [*kept, *(_real_type(each) for each in kinds if _is_complex(each) for _ in Pair._fields)]


def _take_arguments(block: ir.Block, parts: _Parts) -> list[ir.Type]:
    """Give a block arguments for the parts of its complex ones; return the types that its arguments had."""
    kinds = [each.type for each in block.arguments]
    for argument in list(block.arguments):
        if _is_complex(argument):
            kind = _real_type(argument.type)
            parts[argument] = Pair(*(block.add_argument(kind, ir.Location.unknown()) for _ in Pair._fields))
    return kinds


def _drop_arguments(block: ir.Block, kinds: Sequence[ir.Type]) -> None:
    """Remove the complex arguments, which nothing reads any more."""
    for index in reversed(range(len(kinds))):
        if _is_complex(kinds[index]):
            block.erase_argument(index)


def _split_block(block: ir.Block, parts: _Parts) -> None:
    done: list[ir.Operation] = []
    for op in [each.operation for each in block.operations]:
        if not any(map(_is_complex, (*op.operands, *op.results))):
            for region in op.regions:
                for inner in region.blocks:
                    _split_block(inner, parts)
            continue
        with ir.InsertionPoint(op):
            _split(op, parts)
        done.append(op)
    for op in reversed(done):
        op.erase()


def _split(op: ir.Operation, parts: _Parts) -> None:
    """Compute the parts of an operation's complex results, and replace its real results."""
    if op.name in _HANDED_OVER:
        _hand_over(op, parts)
    elif op.name in _BY_PARTS:
        pairs = [_by_part(op, parts, index) for index in range(2)]
        parts.update(zip(op.results, map(Pair, *(each.results for each in pairs)), strict=True))
    elif op.name in _COMBINING:
        parts[op.results[0]] = _combined(op, parts)
    elif op.name in _MADE:
        made = _MADE[op.name](op, [parts.get(each, each) for each in op.operands])
        if isinstance(made, Pair):
            parts[op.results[0]] = made
        else:
            op.results[0].replace_all_uses_with(made)
    else:
        raise _refused(op)


def _hand_over(op: ir.Operation, parts: _Parts) -> None:
    kinds = [each.type for each in op.results]
    made = ir.Operation.create(
        op.name,
        results=_handed_types(kinds),
        operands=_handed(op.operands, parts),
        attributes={name: op.attributes[name] for name in op.attributes},
        regions=len(op.regions),
    )
    for region, target in zip(op.regions, made.regions, strict=True):
        for block in list(region.blocks):
            block.append_to(target)
            old = _take_arguments(block, parts)
            _split_block(block, parts)
            _drop_arguments(block, old)
    results = iter(made.results)
    for result in op.results:
        if not _is_complex(result):
            result.replace_all_uses_with(next(results))
    for result in op.results:
        if _is_complex(result):
            parts[result] = Pair(next(results), next(results))


def _by_part(op: ir.Operation, parts: _Parts, index: int) -> ir.Operation:
    """The operation on the real parts, 0, or on the imaginary ones, 1."""
    return ir.Operation.create(
        op.name,
        results=[_real_type(each.type) for each in op.results],
        operands=[parts[each][index] if _is_complex(each) else each for each in op.operands],
        attributes={name: op.attributes[name] for name in op.attributes},
        regions=len(op.regions),
    )


def _combined(op: ir.Operation, parts: _Parts) -> Pair:
    """A sum by a reduction or a scatter, or an overwriting scatter, of one tensor: each part by itself."""
    body = [each.operation for each in op.regions[0].blocks[0].operations]
    names = [each.name for each in body]
    if names == ["stablehlo.multiply", "stablehlo.return"] and op.name == "stablehlo.reduce" and len(op.operands) == 2:
        value, start = (parts[each] for each in op.operands)
        return pairs.product(value, start, list(ir.DenseI64ArrayAttr(op.attributes["dimensions"])))
    adds = names == ["stablehlo.add", "stablehlo.return"]
    replaces = names == ["stablehlo.return"] and body[0].operands[0] == op.regions[0].blocks[0].arguments[1]
    if len(op.results) != 1 or not (adds or replaces):
        raise _refused(op, f" by {names[0].removeprefix('stablehlo.')}")

    def made(index: int) -> ir.Value:
        apart = _by_part(op, parts, index)
        scalar = ir.RankedTensorType.get([], element_type(apart.result))
        block = apart.regions[0].blocks.append(scalar, scalar)
        with ir.InsertionPoint(block):
            old, new = block.arguments
            ir.Operation.create("stablehlo.return", operands=[build.elementwise("add", old, new) if adds else new])
        return apart.result

    return Pair(made(0), made(1))


def _refused(op: ir.Operation, how: str = "") -> UsageError:
    return UsageError(
        f"{op.name.removeprefix('stablehlo.')}{how} of complex numbers has no lowering; "
        "compute it from their real and imaginary parts"
    )


def _constant(op: ir.Operation, _: object) -> Pair:
    kind = _real_type(op.results[0].type)

    def constant(part: np.ndarray) -> ir.Value:
        if len(part) == 1:
            return build.constant(float(part[0]), kind.element_type, kind.shape)
        dense = ir.DenseElementsAttr.get(np.ascontiguousarray(part.reshape(kind.shape)), type=kind)
        return ir.Operation.create("stablehlo.constant", results=[kind], attributes={"value": dense}).result

    parts = _numbers(op, np.dtype(np.float32 if width_of(kind.element_type) == 32 else np.float64))
    return Pair(constant(parts[0::2]), constant(parts[1::2]))


def _numbers(op: ir.Operation, real: np.dtype) -> np.ndarray:
    """The real and imaginary parts of a complex constant's elements in turn; of a splat, those of its one number.

    They are read from the constant's text, because MLIR's bindings read no complex elements.
    """
    text = op.get_asm(print_generic_op_form=True).partition("dense<")[2].partition("> : tensor<")[0]
    if text.startswith('"0x'):
        return np.frombuffer(bytes.fromhex(text.strip('"')[2:]), real)
    pairs = re.findall(r"\(([^()]+)\)", text)
    return np.array([_number(each, real) for pair in pairs for each in pair.split(",")], real)


def _number(text: str, real: np.dtype) -> float:
    """A number from MLIR's text, which gives numbers that are not finite by their bits."""
    if "0x" not in text:
        return float(text)
    return float(np.frombuffer(int(text, 16).to_bytes(real.itemsize, "little"), real)[0])


def _converted(op: ir.Operation, operands: list[Pair | ir.Value]) -> Pair:
    kind = ir.ComplexType(element_type(op.results[0])).element_type
    (value,) = operands
    if isinstance(value, Pair):
        return Pair(*(converted(each, kind) for each in value))
    real = converted(value, kind)
    return Pair(real, build.like(0, real))


def _iota(op: ir.Operation, _: object) -> Pair:
    kind = _real_type(op.results[0].type)
    attributes = {name: op.attributes[name] for name in op.attributes}
    real = ir.Operation.create(op.name, results=[kind], attributes=attributes).result
    return Pair(real, build.like(0, real))


def _compare(op: ir.Operation, x: Pair, y: Pair) -> ir.Value:
    direction = str(op.attributes["comparison_direction"])
    if direction.endswith(" EQ>"):
        return pairs.equal("EQ", x, y)
    if direction.endswith(" NE>"):
        return pairs.equal("NE", x, y)
    raise _refused(op)


def _dot(op: ir.Operation, x: Pair, y: Pair) -> Pair:
    def product(left: ir.Value, right: ir.Value) -> ir.Value:
        return ir.Operation.create(
            op.name,
            results=[_real_type(op.results[0].type)],
            operands=[left, right],
            attributes={name: op.attributes[name] for name in op.attributes},
        ).result

    return pairs.multiply(x, y, product)


def _reciprocal(x: Pair) -> Pair:
    one = build.like(1, x.real)
    return pairs.divide(Pair(one, build.like(0, one)), x)


_MADE: Mapping[str, Callable[..., Pair | ir.Value]] = MappingProxyType({
    "stablehlo.abs": lambda op, x: pairs.magnitude(*x),
    "stablehlo.compare": lambda op, x: _compare(op, *x),
    "stablehlo.complex": lambda op, x: Pair(*x),
    "stablehlo.constant": _constant,
    "stablehlo.convert": _converted,
    "stablehlo.cosine": lambda op, x: pairs.cosine(*x),
    "stablehlo.divide": lambda op, x: pairs.divide(*x),
    "stablehlo.dot_general": lambda op, x: _dot(op, *x),
    "stablehlo.exponential": lambda op, x: pairs.exponential(*x),
    "stablehlo.imag": lambda op, x: x[0].imag,
    "stablehlo.iota": _iota,
    "stablehlo.log": lambda op, x: pairs.log(*x),
    "stablehlo.multiply": lambda op, x: pairs.multiply(*x),
    "stablehlo.power": lambda op, x: pairs.power(*x),
    "stablehlo.real": lambda op, x: x[0].real,
    "stablehlo.rsqrt": lambda op, x: _reciprocal(pairs.sqrt(*x)),
    "stablehlo.sign": lambda op, x: pairs.sign(*x),
    "stablehlo.sine": lambda op, x: pairs.sine(*x),
    "stablehlo.sqrt": lambda op, x: pairs.sqrt(*x),
    "stablehlo.tan": lambda op, x: pairs.divide(pairs.sine(*x), pairs.cosine(*x)),
    "stablehlo.tanh": lambda op, x: pairs.tanh(*x),
})  # fmt: skip


PASS = Pass(
    name="split-complex",
    summary="take complex numbers apart into their real and imaginary parts",
    description=__doc__,
    run=split_complex,
)
