"""Shifts of a matrix along its rows, which JAX makes of slices and concatenations."""

from __future__ import annotations

from dataclasses import dataclass

from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner

# A tensor is shifted by at most one row in so many.
_SHIFTED_SHARE = 4


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A matrix whose rows are those of another, `by` rows on.

    Attributes:
      source: the other matrix.
      by: which row the first one is; negative for one that is before the first.
      wraps: whether a column goes on with the next one's first rows, and begins after the last rows of the one before.
        Then only the last column's end and the first one's beginning are filled, else the ends of all.
      fill: a tensor of the scalar that is there in place of what there is not.
    """

    source: ir.Value
    by: int
    wraps: bool
    fill: ir.Value


def is_concatenation(op: ir.Operation, dim: int) -> bool:
    """Whether tensors are put one after the other along this axis."""
    return bool(op.name == "stablehlo.concatenate" and ir.IntegerAttr(op.attributes["dimension"]).value == dim)


def shift_of(op: ir.Operation) -> Shift | None:
    """What the operation shifts and how, None if it is another."""
    if not is_concatenation(op, 0) or len(op.operands) != 2 or len(shape_of(op.results[0])) != 2:
        return None
    rows, columns = shape_of(op.results[0])
    first, second = op.operands
    down = shape_of(first)[0] < shape_of(second)[0]
    most, few = (second, first) if down else (first, second)
    count = shape_of(few)[0]
    source, (start, column), shape = _sliced(most)
    if shape_of(source) != [rows, columns] or (start, column) != (0 if down else count, 0) or shape[1] != columns:
        return None
    if not 0 < count * _SHIFTED_SHARE <= rows:
        return None
    by = -count if down else count
    if is_splat(few):
        return Shift(source=source, by=by, wraps=False, fill=few)
    if (edge := owner(few)) is None or not is_concatenation(edge, 1):
        return None
    parts = [each for each in edge.operands if shape_of(each)[1]]
    fills = parts[:1] if down else parts[-1:]
    if not is_splat(fills[0]) or shape_of(fills[0])[1] != 1:
        return None
    rest = [each for each in parts if each != fills[0]]
    wanted = (source, (rows - count, 0) if down else (0, 1), (count, columns - 1))
    if [_sliced(each) for each in rest] != [wanted] * (columns > 1):
        return None
    return Shift(source=source, by=by, wraps=True, fill=fills[0])


def _sliced(value: ir.Value) -> tuple[ir.Value, tuple[int, ...], tuple[int, ...]]:
    """The tensor that elements without gaps are sliced from in the end, where they start in it, and how many."""
    shape = tuple(shape_of(value))
    starts = (0,) * len(shape)
    while (op := owner(value)) is not None and op.name == "stablehlo.slice":
        if set(ir.DenseI64ArrayAttr(op.attributes["strides"])) != {1}:
            break
        value = op.operands[0]
        starts = tuple(map(sum, zip(starts, ir.DenseI64ArrayAttr(op.attributes["start_indices"]), strict=True)))
    return value, starts, shape
