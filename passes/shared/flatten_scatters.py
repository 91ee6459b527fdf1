"""Scatter windows element by element along the axes that they do not cover.

IREE 3.13 takes a window only along axes without an index, and only if it covers them. It lowers other scatters to code
that its own verifier refuses. The gradient of slices of a table, such as random crops, is such a scatter; `jax.vmap`
makes one of `dynamic_update_slice`, as in `eval_step`.

    scatter(x[N, C], i[B, 1], windows of k x C)  becomes  scatter(x, i[B, k, 1] = i + (0 ... k - 1), windows of C)

The index along an axis that the window covers is 0 after `bound-scatters`, and goes.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def flatten_scatters(module: ir.Module) -> None:
    """Rewrite every `stablehlo.scatter` with windows along indexed axes, or smaller than an axis."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.scatter":
            _flatten(op)


def _flatten(op: ir.Operation) -> None:
    dimensions = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    given, inserted = list(dimensions.scattered_dims_to_operand_dims), list(dimensions.inserted_window_dims)
    batching, windows = list(dimensions.input_batching_dims), list(dimensions.update_window_dims)
    sizes, updated = shape_of(op.operands[0]), shape_of(op.operands[len(op.results) + 1])
    free = [dim for dim in range(len(sizes)) if dim not in {*inserted, *batching}]
    of_window = dict(zip(free, windows, strict=True))
    covered = {dim for dim, place in of_window.items() if updated[place] == sizes[dim]}
    indexed = [dim for dim in given if dim not in covered]
    indexed += [dim for dim in range(len(sizes)) if dim not in {*given, *batching, *covered}]
    # IREE takes no scatter without an index, such as `x.at[:].add(y)` makes.
    indexed = indexed or given[:1] or free[:1]
    if not indexed or (indexed == given and sorted(inserted) == sorted(given)):
        return
    kept = [place for dim, place in of_window.items() if dim not in indexed]
    # The axes of the updates along which each element has an index: the scatter axes, and those of the windows that go.
    before = [place for place in range(len(updated)) if place not in windows]
    places = [place for place in range(len(updated)) if place not in kept]
    shape = [updated[place] for place in places]
    axis, parts = dimensions.index_vector_dim, []
    with ir.InsertionPoint(op):
        # An index of eight bits can be within a tensor, and the rows of its window beyond eight bits.
        indices = convert(op.operands[len(op.results)], ir.IntegerType.get_signless(32))
        for dim in indexed:
            if dim in given:
                index = _component(indices, given.index(dim), axis)
                index = build.broadcast(index, shape, [places.index(place) for place in before])
            else:
                index = build.constant(0, element_type(indices), shape)
            if dim in of_window:
                row = build.iota(shape, places.index(of_window[dim]), element_type(indices))
                index = build.elementwise("add", index, row)
            parts.append(build.reshape(index, [*shape, 1]))
        op.operands[len(op.results)] = build.concatenate(parts, len(shape))
    # The batch axes of the indices, less the axis of components, are axes of the updates in the same order.
    old = [dim - (dim > axis) for dim in dimensions.scatter_indices_batching_dims]
    op.attributes["scatter_dimension_numbers"] = ir.Attribute.parse(
        f"#stablehlo.scatter<update_window_dims = {kept}, inserted_window_dims = {sorted(indexed)}, "
        f"input_batching_dims = {batching}, "
        f"scatter_indices_batching_dims = {[places.index(before[dim]) for dim in old]}, "
        f"scatter_dims_to_operand_dims = {indexed}, index_vector_dim = {len(shape)}>"
    )
    op.attributes["indices_are_sorted"] = ir.BoolAttr.get(False)


def _component(indices: ir.Value, number: int, axis: int) -> ir.Value:
    """One component of the indices, without their axis of components; without such an axis they are one."""
    shape = shape_of(indices)
    if axis == len(shape):
        return indices
    starts, limits = [0] * len(shape), list(shape)
    starts[axis], limits[axis] = number, number + 1
    return build.reshape(build.slice_of(indices, starts, limits), [n for dim, n in enumerate(shape) if dim != axis])


PASS = Pass(
    name="flatten-scatters",
    summary="scatter windows element by element along the axes that they do not cover",
    description=__doc__,
    run=flatten_scatters,
)
