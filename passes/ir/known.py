"""Integers that are known when compiling: scalars made of constants, such as the counter of an unrolled loop."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of

# Larger numbers may wrap around.
_LARGEST = 1 << 30

_ARITHMETIC: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "stablehlo.add": operator.add,
        "stablehlo.subtract": operator.sub,
        "stablehlo.multiply": operator.mul,
        "stablehlo.maximum": max,
        "stablehlo.minimum": min,
    }
)
_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = MappingProxyType(
    {"LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge, "EQ": operator.eq, "NE": operator.ne}
)


def known_integers(operations: Iterable[ir.Operation]) -> dict[ir.Value, int]:
    """The scalars of integers that are known, of the results of operations of one block in their order."""
    known: dict[ir.Value, int] = {}
    for op in operations:
        if len(op.results) != 1 or shape_of(op.results[0]):
            continue
        if not isinstance(element_type(op.results[0]), ir.IntegerType):
            continue
        number = _number(op, known)
        if number is not None and abs(number) < _LARGEST and _is_held(number, element_type(op.results[0])):
            known[op.results[0]] = number
    return known


def _is_held(number: int, kind: ir.Type) -> bool:
    """Whether a type of integers has this number; a result that it has not wraps around."""
    least, bits = (0, kind.width) if kind.is_unsigned else (-(2 ** (kind.width - 1)), kind.width - 1)
    return bool(kind.width == 1 or least <= number < 2**bits)


def known_starts(
    indices: Sequence[ir.Value], shape: Sequence[int], sizes: Sequence[int], known: Mapping[ir.Value, int]
) -> list[int] | None:
    """Where a slice of these sizes begins, within the tensor as StableHLO says; None if that is not known."""
    starts = [known[index] for index in indices if index in known]
    if len(starts) < len(indices):
        return None
    return [max(0, min(start, size - own)) for start, size, own in zip(starts, shape, sizes, strict=True)]


def _number(op: ir.Operation, known: Mapping[ir.Value, int]) -> int | None:
    if op.name == "stablehlo.constant":
        splat = splat_of(op.results[0])
        return ir.IntegerAttr(splat).value if isinstance(splat, ir.IntegerAttr) else None
    if op.name == "stablehlo.select" and op.operands[0] in known:
        return known.get(op.operands[1] if known[op.operands[0]] else op.operands[2])
    given = [known[each] for each in op.operands if each in known]
    if len(given) < len(op.operands):
        return None
    if op.name in _ARITHMETIC:
        return _ARITHMETIC[op.name](*given)
    if op.name == "stablehlo.compare":
        direction = str(op.attributes["comparison_direction"]).rpartition(" ")[2].rstrip(">")
        return int(_COMPARISONS[direction](*given))
    is_moved = op.name in ("stablehlo.convert", "stablehlo.reshape", "stablehlo.broadcast_in_dim")
    return given[0] if is_moved and given[0] >= 0 and element_type(op.results[0]).width > 1 else None
