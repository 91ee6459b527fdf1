"""Shifts of a matrix along its rows, which JAX makes of slices and concatenations."""

from __future__ import annotations

from dataclasses import dataclass

from sonew_compiled.passes.ir.constants import is_splat
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import owner

# A concatenation is a shift only if the matrix has at least this many times the rows that it is shifted by.
_ROWS_FOR_EACH_SHIFTED = 4


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A matrix whose rows are those of another one, `by` rows further on.

    Row `r` of the result is row `r + by` of the source. Rows beyond the ends hold the fill. If the shift wraps, they
    hold the neighbouring column instead: row -1 of a column is the last row of the column before it. Only an end
    without a neighbour then holds the fill: that of the last column, or of the first.

    Attributes:
      source: the other matrix.
      by: how many rows further on; negative for rows before.
      wraps: whether rows beyond the ends are those of the neighbouring column.
      fill: a splat of the number beyond the source's ends.
    """

    source: ir.Value
    by: int
    wraps: bool
    fill: ir.Value


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """A contiguous part of a tensor: where it starts on each axis, and its shape."""

    source: ir.Value
    starts: tuple[int, ...]
    shape: tuple[int, ...]


def is_concatenation(op: ir.Operation, dim: int) -> bool:
    """Whether tensors are put one after the other along this axis."""
    return bool(op.name == "stablehlo.concatenate" and ir.IntegerAttr(op.attributes["dimension"]).value == dim)


def is_part_of_shift(op: ir.Operation) -> bool:
    """Whether the operation is a slice or a concatenation such as shifts are made of."""
    return op.name in ("stablehlo.slice", "stablehlo.concatenate")


def shift_of(op: ir.Operation) -> Shift | None:
    """The shift that the operation is; None if it is none.

    A shift by `k` rows concatenates all but `k` rows of the source with `k` rows at the edge.
    """
    if not is_concatenation(op, 0) or len(op.operands) != 2 or len(shape_of(op.results[0])) != 2:
        return None
    first, second = op.operands
    backward = shape_of(first)[0] < shape_of(second)[0]
    kept, edge = (second, first) if backward else (first, second)
    count = shape_of(edge)[0]
    rows, columns = shape_of(op.results[0])
    if not 0 < count * _ROWS_FOR_EACH_SHIFTED <= rows:
        return None
    part = _slice_of(kept)
    whole = _Slice(source=part.source, starts=(0 if backward else count, 0), shape=(rows - count, columns))
    if shape_of(part.source) != [rows, columns] or part != whole:
        return None
    by = -count if backward else count
    if is_splat(edge):
        return Shift(source=part.source, by=by, wraps=False, fill=edge)
    fill = _fill_of_wrapped(edge, part.source, backward=backward)
    return None if fill is None else Shift(source=part.source, by=by, wraps=True, fill=fill)


def _fill_of_wrapped(edge: ir.Value, source: ir.Value, *, backward: bool) -> ir.Value | None:
    """The fill at the edge of a shift that wraps; None if this is no such edge.

    The edge holds the rows at the other end of the source, moved by one column. The column that is left free holds the
    fill: the first column if the shift is backward, else the last one.
    """
    op = owner(edge)
    if op is None or not is_concatenation(op, 1):
        return None
    count = shape_of(edge)[0]
    rows, columns = shape_of(source)
    parts = [each for each in op.operands if shape_of(each)[1]]
    fill = parts[0] if backward else parts[-1]
    if not is_splat(fill) or shape_of(fill)[1] != 1:
        return None
    rest = [_slice_of(each) for each in parts if each != fill]
    starts = (rows - count, 0) if backward else (0, 1)
    wanted = _Slice(source=source, starts=starts, shape=(count, columns - 1))
    return fill if rest == ([wanted] if columns > 1 else []) else None


def _slice_of(value: ir.Value) -> _Slice:
    """The part of a tensor that this value is, seen through any number of slices without strides."""
    shape = tuple(shape_of(value))
    starts = (0,) * len(shape)
    while (op := owner(value)) is not None and op.name == "stablehlo.slice":
        if set(ir.DenseI64ArrayAttr(op.attributes["strides"])) != {1}:
            break
        value = op.operands[0]
        starts = tuple(map(sum, zip(starts, ir.DenseI64ArrayAttr(op.attributes["start_indices"]), strict=True)))
    return _Slice(source=value, starts=starts, shape=shape)
