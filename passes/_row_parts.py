"""Some rows of a matrix of a group as one operation over slices, also where its shifts read beyond the ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import element_type, shape_of
from sonew_compiled.passes._mlir import ir
from sonew_compiled.passes._rows import RowGroup, Shift, is_elementwise, splat


def part(
    group: RowGroup,
    value: ir.Value,
    wholes: Mapping[ir.Value, ir.Value],
    spans: Sequence[tuple[int, int]],
    combine: str,
) -> ir.Value:
    """Some rows of a written matrix, as one `stablehlo.map`: those of one span, or what is combined of several.

    Args:
      group: the matrix's group.
      value: the matrix.
      wholes: what takes the place of the matrices written until now.
      spans: rows from the first up to the second of each, all of as many; one, or a power of two of them.
      combine: the operation of StableHLO that combines them element by element.
    """
    cone = _Cone(group, value, wholes)
    copies = [_Copy(cone, _Around(group.rows, *span)) for span in spans]
    every = [each for copy in copies for each in copy.read]
    rows = spans[0][1] - spans[0][0]
    kind = ir.RankedTensorType.get([rows, group.columns], element_type(value))
    attributes = {"dimensions": ir.DenseI64ArrayAttr.get([0, 1])}
    mapped = ir.Operation.create("stablehlo.map", results=[kind], operands=every, attributes=attributes, regions=1)
    body = mapped.regions[0].blocks.append(*(ir.RankedTensorType.get([], element_type(each)) for each in every))
    with ir.InsertionPoint(body):
        arguments = iter(body.arguments)
        results = [copy.compute([next(arguments) for _ in copy.read]) for copy in copies]
        while len(results) > 1:
            pairs = zip(results[::2], results[1::2], strict=True)
            results = [build.elementwise(combine, left, right) for left, right in pairs]
        ir.Operation.create("stablehlo.return", operands=results)
    return mapped.result


class _Cone:
    """What computing a matrix takes, from those that are written.

    Attributes:
      group: the matrix's group.
      value: the matrix.
      wholes: what takes the place of the matrices written until now.
      shifts: at which shifts each matrix is read, itself included.
      operations: what computes it, in order.
      leaves: the matrices that are there, each with a shift at which it is read.
      splats: the scalars that some of them are of.
      fills: what is there in place of the rows that a shift reads beyond the ends.
    """

    def __init__(self, group: RowGroup, value: ir.Value, wholes: Mapping[ir.Value, ir.Value]) -> None:
        self.group = group
        self.value = value
        self.wholes = wholes
        self.shifts = group.shifts_of(value, wholes)
        self.operations = list(group.computed(value, wholes))
        computed = {op.results[0] for op in self.operations}
        leaves = [leaf for leaf in self.shifts if leaf not in computed]
        self.splats = {leaf: scalar for leaf in leaves if (scalar := splat(leaf)) is not None}
        every = [(leaf, shift) for leaf in leaves for shift in sorted(self.shifts[leaf])]
        # At least one, which a map must have.
        self.leaves = [each for each in every if each[0] not in self.splats] or every[:1]
        self.fills = {op: splat(group.shifts[op].fill) for op in self.operations if op in group.shifts}


class _Copy:
    """The computation of some rows of a matrix.

    Attributes:
      read: the tensors that it reads, all of one shape.
    """

    def __init__(self, cone: _Cone, around: _Around) -> None:
        self._cone = cone
        slices = [around.rows_of(cone.wholes.get(x, x), shift, cone.shifts[x]) for x, shift in cone.leaves]
        self._inside = {
            (op, shift): mask
            for op in cone.fills
            for shift in cone.shifts[op.results[0]]
            if (mask := around.inside(cone.group.shifts[op], shift, cone.group.columns)) is not None
        }
        self._masks = list(dict.fromkeys(self._inside.values()))
        self.read = [*slices, *self._masks]

    def compute(self, arguments: Sequence[ir.Value]) -> ir.Value:
        """One element, from those of `read`."""
        cone = self._cone
        # Scalars are read from within: a compiler may write out a tensor that is broadcast for several to read.
        made = {(leaf, shift): scalar for leaf, scalar in cone.splats.items() for shift in cone.shifts[leaf]}
        made |= zip(cone.leaves, arguments, strict=False)
        chosen = dict(zip(self._masks, arguments[len(cone.leaves) :], strict=True))
        for op in cone.operations:
            for shift in cone.shifts[op.results[0]]:
                if is_elementwise(op):
                    result = _scalar(op, [made[each, shift] if shape_of(each) else each for each in op.operands])
                else:
                    result = made[cone.group.shifts[op].source, shift + cone.group.shifts[op].by]
                    if (mask := self._inside.get((op, shift))) is not None:
                        result = build.select(chosen[mask], result, cone.fills[op])
                made[op.results[0], shift] = result
        return made[cone.value, 0]


class _Around:
    """The rows of matrices at and around rows `first` up to `end`, columns going on where they end.

    Row -1 of a column is the last row of the column before it. In memory that is the element before the last row's of
    the same column, so that rows beyond the first or the last are read in place too: as a slice of all elements, one
    element off. What this finds for the first column, which there is none before, is some other element.
    """

    def __init__(self, rows: int, first: int, end: int) -> None:
        self._rows = rows
        self._first = first
        self._end = end
        self._masks: dict[tuple[int, bool], ir.Value] = {}
        self._joined: dict[ir.Value, tuple[int, ir.Value]] = {}

    def rows_of(self, matrix: ir.Value, shift: int, shifts: set[int]) -> ir.Value:
        """The rows of a matrix at a shift, one of all at which it is read."""
        start, end = self._first + shift, self._end + shift
        if not self._is_joined(shift):
            return self._slice(matrix, start, end)
        if matrix not in self._joined:
            read = [each for each in shifts if self._is_joined(each)]
            low, high = self._first + min(read), self._end + max(read)
            cut = 0 if low < 0 else self._rows
            pieces = [self._slice(matrix, low, cut), self._slice(matrix, cut, high)]
            self._joined[matrix] = (low, build.concatenate(pieces, 0))
        low, joined = self._joined[matrix]
        return build.rows(joined, start - low, end - low)

    def inside(self, shift: Shift, at: int, count: int) -> ir.Value | None:
        """Where, in so many columns, the shift, read at another, has no need of its fill; None if everywhere."""
        start = self._first + at + shift.by
        rows = np.arange(start, start + self._end - self._first)
        before, after = rows < 0, rows >= self._rows
        if not (before | after).any():
            return None
        key = (start, shift.wraps)
        if key not in self._masks:
            columns = np.arange(count)
            outside = np.outer(before, columns == 0) | np.outer(after, columns == columns[-1])
            if not shift.wraps:
                outside = np.outer(before | after, columns >= 0)
            self._masks[key] = build.mask(~outside)
        return self._masks[key]

    def _is_joined(self, shift: int) -> bool:
        """Whether some of the rows are beyond an end, and some are not."""
        start, end = self._first + shift, self._end + shift
        return start < 0 < end or start < self._rows < end

    def _slice(self, matrix: ir.Value, start: int, end: int) -> ir.Value:
        if start >= 0 and end <= self._rows:
            return build.rows(matrix, start, end)
        columns = shape_of(matrix)[1]
        flat = build.reshape(matrix, [self._rows * columns])
        where = (start + self._rows) * columns - 1 if start < 0 else (start - self._rows) * columns + 1
        return build.reshape(build.rows(flat, where, where + (end - start) * columns), [end - start, columns])


def _scalar(op: ir.Operation, operands: list[ir.Value]) -> ir.Value:
    """The same elementwise operation on scalars."""
    kind = ir.RankedTensorType.get([], element_type(op.results[0]))
    attributes = {name: op.attributes[name] for name in op.attributes}
    return ir.Operation.create(op.name, results=[kind], operands=operands, attributes=attributes).result
