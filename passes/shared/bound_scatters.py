"""Drop the updates that scatters would write outside their operands.

StableHLO drops an update whose place is outside the operand. IREE 3.13 writes it to memory that may belong to another
tensor. Such an update becomes a neutral number inside if the body has one, such as zero for a sum. Otherwise the pass
pads the operand, sends the update to the padding, and cuts the padding off.

    scatter(x, i, u)  becomes  scatter(x, clamp(i), select(i is outside, 0, u))
                      or       slice(scatter(pad(x), select(i is outside, size of x, i), u))

A window that is partly outside is dropped as a whole, as XLA does it.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.ranges import is_inside, limits
from sonew_compiled.passes.ir.types import element_type, is_half, shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_WIDTH = 32


def bound_scatters(module: ir.Module) -> None:
    """Keep within its operands every `stablehlo.scatter` that may write outside them."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.scatter":
            _bound(op)


def _bound(op: ir.Operation) -> None:
    dimensions = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    count = len(op.results)
    operands, indices, updates = op.operands[:count], op.operands[count], list(op.operands)[count + 1 :]
    indexed = list(dimensions.scattered_dims_to_operand_dims)
    sizes, extents = shape_of(operands[0]), _extents(operands[0], updates[0], dimensions)
    greatest = [sizes[dim] - extents[dim] for dim in indexed]
    if not greatest or is_inside(indices, greatest):
        return
    axis = dimensions.index_vector_dim
    neutral = _neutral(op) if count == 1 else None
    with ir.InsertionPoint(op):
        if element_type(indices).width < _WIDTH:
            # No narrow integer points behind a large tensor.
            indices = convert(indices, ir.IntegerType.get_signless(_WIDTH))
            op.operands[count] = indices
        outside = _outside(indices, axis, limits(indices, axis, greatest))
        if neutral is not None:
            highest = limits(indices, axis, greatest)
            op.operands[count] = build.elementwise("minimum", build.elementwise("maximum", indices, 0), highest)
            windows = list(dimensions.update_window_dims)
            shape = shape_of(updates[0])
            scattered = [dim for dim in range(len(shape)) if dim not in windows]
            left_out = build.broadcast(outside, shape, scattered)
            op.operands[count + 1] = build.select(left_out, build.like(neutral, updates[0]), updates[0])
            # The updates that are dropped now share a place.
            for name in ("unique_indices", "indices_are_sorted"):
                op.attributes[name] = ir.BoolAttr.get(False)
            return
        behind = limits(indices, axis, [sizes[indexed[0]], *[0] * (len(indexed) - 1)])
        shape = shape_of(indices)
        components = [dim for dim in range(len(shape)) if dim != axis]
        op.operands[count] = build.select(build.broadcast(outside, shape, components), behind, indices)
        op.attributes["indices_are_sorted"] = ir.BoolAttr.get(False)
        room = [size + extents[dim] if dim == indexed[0] else size for dim, size in enumerate(sizes)]
        for position, operand in enumerate(operands):
            rest = [end - start for start, end in zip(sizes, room, strict=True)]
            slack = [rest[dim] if dim == indexed[0] else size for dim, size in enumerate(sizes)]
            zeros = build.constant(0, element_type(operand), slack)
            op.operands[position] = build.concatenate([operand, zeros], indexed[0])
    for result in op.results:
        result.set_type(ir.RankedTensorType.get(room, element_type(result)))
        with ir.InsertionPoint.after(op):
            inner = build.slice_of(result, [0] * len(sizes), sizes)
        result.replace_all_uses_except(inner, owner(inner))


def _extents(operand: ir.Value, update: ir.Value, dimensions: stablehlo.ScatterDimensionNumbers) -> list[int]:
    """The size, along each axis of the operand, of the window that one index writes."""
    single = {*dimensions.inserted_window_dims, *dimensions.input_batching_dims}
    windows = iter(dimensions.update_window_dims)
    sizes = shape_of(update)
    return [1 if dim in single else sizes[next(windows)] for dim in range(len(shape_of(operand)))]


def _outside(indices: ir.Value, axis: int, greatest: ir.Value) -> ir.Value:
    """Whether any component of each index is outside."""
    kind = "UNSIGNED" if element_type(indices).is_unsigned else "SIGNED"
    above = build.compare("GT", indices, greatest, kind)
    below = build.compare("LT", indices, build.like(0, indices), kind)
    either = build.elementwise("or", above, below)
    if axis == len(shape_of(indices)):
        return either
    no = build.constant(0, ir.IntegerType.get_signless(1))
    return build.reduce("or", either, no, [axis])


def _neutral(op: ir.Operation) -> float | None:
    """The update that changes nothing under the scatter's body; None if none is known."""
    (block,) = op.regions[0].blocks
    operations = list(block.operations)
    if len(operations) != 2 or list(operations[0].operands) not in (list(block.arguments), list(block.arguments)[::-1]):
        return None
    element = element_type(op.results[0])
    is_float = isinstance(element, ir.F32Type) or is_half(element)
    if not is_float and not isinstance(element, ir.IntegerType):
        return None
    match operations[0].name.removeprefix("stablehlo."):
        case "add":
            return -0.0 if is_float else 0  # 0 + -0 is 0, and -0 + -0 is -0
        case "multiply":
            return 1
        case "maximum" | "minimum" as name if is_float:
            return float("-inf") if name == "maximum" else float("inf")
        case "maximum" | "minimum" as name:
            bits = element.width
            least, most = (
                (0, 2**bits - 1) if element.is_unsigned or bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            )
            return least if name == "maximum" else most
    return None


PASS = Pass(
    name="bound-scatters",
    summary="drop the updates that scatters would write outside their operands",
    description=__doc__,
    run=bound_scatters,
)
