"""Making StableHLO operations at the insertion point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import element_type, shape_of, with_element
from sonew_compiled.passes.ir.uses import owner


def create(
    name: str,
    operands: Sequence[ir.Value] = (),
    results: Sequence[ir.Type] = (),
    attributes: Mapping[str, ir.Attribute] | None = None,
    regions: int = 0,
) -> ir.Operation:
    """An operation at the insertion point."""
    return ir.Operation.create(
        name, results=list(results), operands=list(operands), attributes=dict(attributes or {}), regions=regions
    )


def u32() -> ir.Type:
    """The type of an unsigned 32-bit integer."""
    return ir.IntegerType.get_unsigned(32)


def constant(value: float, element: ir.Type, shape: Sequence[int] = ()) -> ir.Value:
    """A tensor of one value."""
    kind = ir.RankedTensorType.get(shape, element)
    whole = isinstance(element, ir.IntegerType)
    one = ir.IntegerAttr.get(element, int(value)) if whole else ir.FloatAttr.get(element, value)
    attributes = {"value": ir.DenseElementsAttr.get_splat(kind, one)}
    return ir.Operation.create("stablehlo.constant", results=[kind], attributes=attributes).result


def elementwise(name: str, first: ir.Value, *others: ir.Value | int) -> ir.Value:
    """`stablehlo.<name>` of tensors of one type; the result has that type too. A number stands for a splat."""
    operands = [first, *(like(other, first) if isinstance(other, int) else other for other in others)]
    return ir.Operation.create(f"stablehlo.{name}", results=[first.type], operands=operands).result


def like(value: float, tensor: ir.Value) -> ir.Value:
    """A splat of one value with the type of another tensor."""
    return constant(value, element_type(tensor), shape_of(tensor))


def compare(direction: str, left: ir.Value, right: ir.Value, kind: str) -> ir.Value:
    """Whether `left` is `LT`, `GE`, ... `right`, compared as `FLOAT`, `SIGNED` or `UNSIGNED`."""
    attributes = {
        "comparison_direction": ir.Attribute.parse(f"#stablehlo<comparison_direction {direction}>"),
        "compare_type": ir.Attribute.parse(f"#stablehlo<comparison_type {kind}>"),
    }
    into = with_element(left, ir.IntegerType.get_signless(1))
    return ir.Operation.create(
        "stablehlo.compare", results=[into], operands=[left, right], attributes=attributes
    ).result


def has_sign(value: ir.Value) -> ir.Value:
    """Whether a floating-point number is negative, or the negative zero, whose inverse is."""
    zero, one = like(0, value), like(1, value)
    below = (compare("LT", each, zero, "FLOAT") for each in (value, elementwise("divide", one, value)))
    return elementwise("or", *below)


def select(condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    """`yes` where the condition, a tensor of the same shape or a scalar, holds, else `no`."""
    return ir.Operation.create("stablehlo.select", results=[yes.type], operands=[condition, yes, no]).result


def bitcast(value: ir.Value, into: ir.Type) -> ir.Value:
    """The same bits as another element type of the same width."""
    kind = with_element(value, into)
    return ir.Operation.create("stablehlo.bitcast_convert", results=[kind], operands=[value]).result


def broadcast(value: ir.Value, shape: Sequence[int], dims: Sequence[int] = ()) -> ir.Value:
    """A tensor that repeats the value along new axes; the value's own axes become those at `dims`."""
    kind = ir.RankedTensorType.get(shape, element_type(value))
    attributes = {"broadcast_dimensions": ir.DenseI64ArrayAttr.get(list(dims))}
    return ir.Operation.create(
        "stablehlo.broadcast_in_dim", results=[kind], operands=[value], attributes=attributes
    ).result


def reshape(value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """The same elements in another shape; the tensor itself if it has that shape already."""
    if shape_of(value) == list(shape):
        return value
    kind = ir.RankedTensorType.get(shape, element_type(value))
    return ir.Operation.create("stablehlo.reshape", results=[kind], operands=[value]).result


def transpose(value: ir.Value, order: Sequence[int]) -> ir.Value:
    """The tensor whose axis `k` is the value's axis `order[k]`; the value itself if no axis moves."""
    if list(order) == sorted(order):
        return value
    shape = shape_of(value)
    kind = ir.RankedTensorType.get([shape[dim] for dim in order], element_type(value))
    attributes = {"permutation": ir.DenseI64ArrayAttr.get(list(order))}
    return ir.Operation.create("stablehlo.transpose", results=[kind], operands=[value], attributes=attributes).result


def reverse(value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """The tensor with its elements in reverse along these axes."""
    attributes = {"dimensions": ir.DenseI64ArrayAttr.get(list(axes))}
    return ir.Operation.create(
        "stablehlo.reverse", results=[value.type], operands=[value], attributes=attributes
    ).result


def concatenate(parts: Sequence[ir.Value], dim: int) -> ir.Value:
    """The tensors one after the other along an axis; a single tensor is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    shape = shape_of(parts[0])
    shape[dim] = sum(ir.ShapedType(part.type).shape[dim] for part in parts)
    kind = ir.RankedTensorType.get(shape, element_type(parts[0]))
    attributes = {"dimension": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim)}
    return ir.Operation.create(
        "stablehlo.concatenate", results=[kind], operands=list(parts), attributes=attributes
    ).result


def slice_of(
    value: ir.Value, starts: Sequence[int], limits: Sequence[int], strides: Sequence[int] | None = None
) -> ir.Value:
    """Each `strides`-th element from `starts` up to `limits`; the tensor itself if that is all of it."""
    shape = shape_of(value)
    steps = [1] * len(shape) if strides is None else list(strides)
    sizes = [len(range(*each)) for each in zip(starts, limits, steps, strict=True)]
    if sizes == shape:
        return value
    kind = ir.RankedTensorType.get(sizes, element_type(value))
    attributes = {
        "start_indices": ir.DenseI64ArrayAttr.get(list(starts)),
        "limit_indices": ir.DenseI64ArrayAttr.get(list(limits)),
        "strides": ir.DenseI64ArrayAttr.get(steps),
    }
    return ir.Operation.create("stablehlo.slice", results=[kind], operands=[value], attributes=attributes).result


def slices_at(value: ir.Value, indices: ir.Value) -> ir.Value:
    """The slices with these indices on the first axis, in place of each index; the first axis may be dynamic."""
    found, left = shape_of(indices), shape_of(value)[1:]
    numbers = stablehlo.GatherDimensionNumbers.get(
        offset_dims=list(range(len(found), len(found) + len(left))),
        collapsed_slice_dims=[0],
        operand_batching_dims=[],
        start_indices_batching_dims=[],
        start_index_map=[0],
        index_vector_dim=len(found),
    )
    return create(
        "stablehlo.gather",
        [value, reshape(indices, [*found, 1])],
        [ir.RankedTensorType.get([*found, *left], element_type(value))],
        {"dimension_numbers": numbers, "slice_sizes": ir.DenseI64ArrayAttr.get([1, *left])},
    ).result


def pad(
    value: ir.Value, padding: ir.Value, low: Sequence[int], high: Sequence[int], interior: Sequence[int] | None = None
) -> ir.Value:
    """The tensor with a scalar before, behind and between its elements; a negative number takes elements away."""
    between = [0] * len(low) if interior is None else list(interior)
    if not any((*low, *high, *between)):
        return value
    shape = zip(shape_of(value), low, high, between, strict=True)
    sizes = [before + size + max(0, size - 1) * step + after for size, before, after, step in shape]
    amounts = {"edge_padding_low": low, "edge_padding_high": high, "interior_padding": between}
    attributes = {name: ir.DenseI64ArrayAttr.get(list(each)) for name, each in amounts.items()}
    kind = ir.RankedTensorType.get(sizes, element_type(value))
    return ir.Operation.create("stablehlo.pad", results=[kind], operands=[value, padding], attributes=attributes).result


def product(left: ir.Value, right: ir.Value, contracted: tuple[int, int], element: ir.Type) -> ir.Value:
    """The product of two matrices over one axis of each, with sums of this type."""
    kept = [shape_of(value)[1 - axis] for value, axis in zip((left, right), contracted, strict=True)]
    numbers = stablehlo.DotDimensionNumbers.get(
        lhs_batching_dimensions=[],
        rhs_batching_dimensions=[],
        lhs_contracting_dimensions=[contracted[0]],
        rhs_contracting_dimensions=[contracted[1]],
    )
    return ir.Operation.create(
        "stablehlo.dot_general",
        results=[ir.RankedTensorType.get(kept, element)],
        operands=[left, right],
        attributes={"dot_dimension_numbers": numbers},
    ).result


def rows(value: ir.Value, start: int, end: int) -> ir.Value:
    """Rows `start` up to `end`: a slice along the leading axis."""
    shape = shape_of(value)
    return slice_of(value, [start, *[0] * (len(shape) - 1)], [end, *shape[1:]])


def iota(shape: Sequence[int], dim: int, element: ir.Type | None = None) -> ir.Value:
    """The index of every element along an axis, as integers; without `element`, unsigned ones of 32 bits."""
    kind = ir.RankedTensorType.get(shape, element or u32())
    attributes = {"iota_dimension": ir.IntegerAttr.get(ir.IntegerType.get_signless(64), dim)}
    return ir.Operation.create("stablehlo.iota", results=[kind], attributes=attributes).result


def linear_index(shape: Sequence[int]) -> ir.Value:
    """The row-major index of every element, as unsigned 32-bit integers."""
    total = constant(0, u32(), shape)
    for dim, size in enumerate(shape):
        if size > 1:
            total = elementwise("add", total, elementwise("multiply", iota(shape, dim), math.prod(shape[dim + 1 :])))
    return total


def reduce_all(name: str, value: ir.Value, init: ir.Value) -> ir.Value:
    """Reduce all elements to a scalar with `stablehlo.<name>`, whose identity is `init`."""
    return reduce(name, value, init, range(len(shape_of(value))))


def reduce(name: str, value: ir.Value, init: ir.Value, dims: Sequence[int]) -> ir.Value:
    """Reduce these axes with `stablehlo.<name>`, whose identity is `init`."""
    if not dims:
        return value
    left = [size for dim, size in enumerate(shape_of(value)) if dim not in dims]
    kind = ir.RankedTensorType.get(left, element_type(value))
    attributes = {"dimensions": ir.DenseI64ArrayAttr.get(list(dims))}
    op = ir.Operation.create(
        "stablehlo.reduce", results=[kind], operands=[value, init], attributes=attributes, regions=1
    )
    body = op.regions[0].blocks.append(init.type, init.type)
    with ir.InsertionPoint(body):
        result = elementwise(name, *body.arguments)
        ir.Operation.create("stablehlo.return", operands=[result])
    return op.result


def reduce_as(op: ir.Operation, values: Sequence[ir.Value], dims: Sequence[int]) -> list[ir.Value]:
    """Reduce these axes of other tensors, with the body and the initial values that a `stablehlo.reduce` has."""
    copy = op.clone()
    for index, value in enumerate(values):
        copy.operands[index] = value
    copy.attributes["dimensions"] = ir.DenseI64ArrayAttr.get(list(dims))
    left = [size for dim, size in enumerate(shape_of(values[0])) if dim not in dims]
    for result in copy.results:
        result.set_type(ir.RankedTensorType.get(left, element_type(result)))
    return list(copy.results)


def add_zero(value: ir.Value, *, but: Sequence[ir.Operation] = ()) -> None:
    """Make all readers of the value but these operations read its sum with zero, which changes no number."""
    maker = owner(value)
    assert maker is not None, value
    with ir.InsertionPoint.after(maker):
        added = elementwise("add", value, like(0, value))
    value.replace_all_uses_except(added, [added.owner.operation, *but])


def apart(values: Sequence[ir.Value]) -> list[ir.Value]:
    """The same values behind a barrier; no compiler fuses operations across it."""
    kinds = [value.type for value in values]
    return list(ir.Operation.create("stablehlo.optimization_barrier", results=kinds, operands=list(values)).results)


def clone(value: ir.Value) -> ir.Value:
    """A `flow.tensor.clone`: IREE does not fuse the value's producer with the copy's readers, and drops the copy later.

    The operation is of IREE's own dialect, which jaxlib does not know. That dialect takes signless integers only.
    """
    value.type.context.allow_unregistered_dialects = True
    element = element_type(value)
    if isinstance(element, ir.IntegerType) and element.is_unsigned:
        return bitcast(clone(bitcast(value, ir.IntegerType.get_signless(element.width))), element)
    return ir.Operation.create("flow.tensor.clone", results=[value.type], operands=[value]).result
