"""The rows between the edges of shifts as one operation, and the rows at the edges as the same program on few rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sonew_compiled.passes import _build as build
from sonew_compiled.passes._function import element_type, owner, shape_of
from sonew_compiled.passes._mlir import ir
from sonew_compiled.passes._rows import RowGroup, is_elementwise, sliced_rows


def interior(group: RowGroup, value: ir.Value, wholes: Mapping[ir.Value, ir.Value], edges: tuple[int, int]) -> ir.Value:
    """The rows of a written tensor that no edge reaches, as one `stablehlo.map` over slices.

    Args:
      group: the tensor's group.
      value: the tensor.
      wholes: what takes the place of the tensors written until now.
      edges: how many of the first and last rows are left out.
    """
    shifts = group.shifts_of(value, wholes)
    cone = [op for op in group.inside if op.results[0] in shifts and op.results[0] not in wholes]
    count = group.rows - sum(edges)
    rows = [count, *shape_of(value)[1:]]
    computed = {op.results[0] for op in cone}
    leaves = [(leaf, shift) for leaf in shifts if leaf not in computed for shift in sorted(shifts[leaf])]
    splats = {leaf: scalar for leaf, _ in leaves if (scalar := _splat(leaf)) is not None}
    # At least one operand, which a map must have.
    slices = [leaf for leaf in leaves if leaf[0] not in splats] or leaves[:1]
    first = edges[0]
    operands = [build.rows(wholes.get(x, x), first + shift, first + shift + count) for x, shift in slices]

    kind = ir.RankedTensorType.get(rows, element_type(value))
    attributes = {"dimensions": ir.DenseI64ArrayAttr.get(list(range(len(rows))))}
    mapped = ir.Operation.create("stablehlo.map", results=[kind], operands=operands, attributes=attributes, regions=1)
    body = mapped.regions[0].blocks.append(*(ir.RankedTensorType.get([], element_type(each)) for each in operands))
    # Scalars are read from within: a compiler may write out a tensor that is broadcast for several to read.
    made = {(leaf, shift): splats[leaf] for leaf, shift in leaves if leaf in splats}
    made |= zip(slices, body.arguments, strict=True)
    with ir.InsertionPoint(body):
        for op in cone:
            for shift in shifts[op.results[0]]:
                if is_elementwise(op):
                    arguments = [made[each, shift] if shape_of(each) else each for each in op.operands]
                    made[op.results[0], shift] = _like(op, arguments, [])
                else:
                    ((source, more),) = group.reads(op)
                    made[op.results[0], shift] = made[source, shift + more]
        ir.Operation.create("stablehlo.return", operands=[made[value, 0]])
    return mapped.result


def reach(group: RowGroup, value: ir.Value, written: Collection[ir.Value]) -> int:
    """How many rows away what the tensor depends on may be, from what is written on."""
    return max(abs(shift) for shifts in group.shifts_of(value, written).values() for shift in shifts)


class Pinched:
    """The group's program on the first `keep` rows and the last `keep` rows, without those between.

    Near the seam its results are wrong, as far away as `reach`. The rest are those of the whole program.
    """

    def __init__(self, group: RowGroup, keep: int) -> None:
        self._group = group
        self._drop = (keep, group.rows - keep)
        self._wholes: dict[ir.Value, ir.Value] = {}
        self._made: dict[ir.Value, ir.Value] = {}

    def put(self, value: ir.Value, whole: ir.Value) -> None:
        """From here on, read the rows of a written tensor from the tensor that takes its place."""
        self._wholes[value] = whole
        del self._made[value]

    def of(self, value: ir.Value) -> ir.Value:
        """The kept rows of a tensor of the group."""
        needed: dict[ir.Value, None] = {}
        pending = [value]
        while pending:
            each = pending.pop()
            if each not in self._made and each not in needed:
                needed[each] = None
                pending += self._operands(each)
        for each in needed:
            if not self._operands(each):
                self._made[each] = self._pinch(self._wholes.get(each, each))
        for op in self._group.inside:
            if op.results[0] in needed and op.results[0] not in self._made:
                self._made[op.results[0]] = self._remake(op)
        return self._made[value]

    def _operands(self, value: ir.Value) -> list[ir.Value]:
        """What the value is made of, empty if it is there."""
        op = owner(value)
        return [] if op is None or op not in self._group.inside or value in self._wholes else list(op.operands)

    def _pinch(self, value: ir.Value) -> ir.Value:
        shape = shape_of(value)
        if not shape or shape[0] != self._group.rows:
            return value
        keep = self._drop[0]
        if (scalar := _splat(value)) is not None:
            return build.broadcast(scalar, [2 * keep, *shape[1:]])
        return build.concatenate([build.rows(value, 0, keep), build.rows(value, self._drop[1], shape[0])], 0)

    def _remake(self, op: ir.Operation) -> ir.Value:
        operands = [self._made[operand] for operand in op.operands]
        if is_elementwise(op):
            return _like(op, operands, max((shape_of(each) for each in operands), key=len))
        if op.name == "stablehlo.concatenate":
            return build.concatenate(operands, ir.IntegerAttr(op.attributes["dimension"]).value)
        start, end = sliced_rows(op)
        low, high = self._drop
        starts = list(ir.DenseI64ArrayAttr(op.attributes["start_indices"]))
        limits = list(ir.DenseI64ArrayAttr(op.attributes["limit_indices"]))
        if shape_of(op.operands[0])[0] == self._group.rows:
            assert not low < start < high
            assert not low < end < high
            start, end = (each if each <= low else each - (high - low) for each in (start, end))
        return build.slice_of(operands[0], [start, *starts[1:]], [end, *limits[1:]])


def _splat(value: ir.Value) -> ir.Value | None:
    """The scalar that every element of a constant or of a broadcast is, None for any other tensor."""
    op = owner(value)
    if op is not None and op.name == "stablehlo.broadcast_in_dim" and not shape_of(op.operands[0]):
        return op.operands[0]
    if op is not None and op.name == "stablehlo.constant":
        attribute = ir.DenseElementsAttr(op.attributes["value"])
        if attribute.is_splat:
            kind = ir.RankedTensorType.get([], element_type(value))
            one = ir.DenseElementsAttr.get_splat(kind, attribute.get_splat_value())
            return ir.Operation.create("stablehlo.constant", results=[kind], attributes={"value": one}).result
    return None


def _like(op: ir.Operation, operands: list[ir.Value], shape: list[int]) -> ir.Value:
    """The same elementwise operation in another shape."""
    kind = ir.RankedTensorType.get(shape, element_type(op.results[0]))
    attributes = {name: op.attributes[name] for name in op.attributes}
    return ir.Operation.create(op.name, results=[kind], operands=operands, attributes=attributes).result
