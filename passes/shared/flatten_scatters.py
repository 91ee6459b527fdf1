"""Scatter batched windows along indexed axes element by element.

IREE 3.13 lowers a scatter with batch axes and windows along indexed axes to code that its own verifier refuses.
`jax.vmap` makes such a scatter of `dynamic_update_slice`, as in `eval_step`.

    scatter(x[B, N], i[B, 1], windows of k)  becomes  scatter(x, i[B, k, 1] = i + (0 ... k - 1), no windows)
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


def flatten_scatters(module: ir.Module) -> None:
    """Rewrite every `stablehlo.scatter` that has batch axes, and windows along indexed axes."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.scatter":
            _flatten(op)


def _flatten(op: ir.Operation) -> None:
    dimensions = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    indexed, inserted = list(dimensions.scattered_dims_to_operand_dims), list(dimensions.inserted_window_dims)
    batching = list(dimensions.input_batching_dims)
    if not batching or set(indexed) <= set(inserted):
        return
    indices, update = op.operands[len(op.results)], op.operands[len(op.results) + 1]
    axis, sizes = dimensions.index_vector_dim, shape_of(update)
    windows = list(dimensions.update_window_dims)
    rank = len(shape_of(op.operands[0]))
    of_window = dict(zip((dim for dim in range(rank) if dim not in {*inserted, *batching}), windows, strict=True))
    kept = [place for dim, place in of_window.items() if dim not in indexed]
    # The axes of the updates along which each element has an index: the scatter axes, and those of the windows that go.
    before = [place for place in range(len(sizes)) if place not in windows]
    places = [place for place in range(len(sizes)) if place not in kept]
    shape = [sizes[place] for place in places]
    element = element_type(indices)
    parts = []
    with ir.InsertionPoint(op):
        for component, dim in enumerate(indexed):
            whole = shape_of(indices)
            if axis < len(whole):
                starts, limits = [0] * len(whole), list(whole)
                starts[axis], limits[axis] = component, component + 1
                one = build.reshape(
                    build.slice_of(indices, starts, limits), [n for d, n in enumerate(whole) if d != axis]
                )
            else:
                one = indices
            index = build.broadcast(one, shape, [places.index(place) for place in before])
            if dim in of_window:
                index = build.elementwise("add", index, build.iota(shape, places.index(of_window[dim]), element))
            parts.append(build.reshape(index, [*shape, 1]))
        op.operands[len(op.results)] = build.concatenate(parts, len(shape))
    # The batch axes of the indices, less the axis of components, are axes of the updates in the same order.
    old = [dim - (dim > axis) for dim in dimensions.scatter_indices_batching_dims]
    op.attributes["scatter_dimension_numbers"] = ir.Attribute.parse(
        f"#stablehlo.scatter<update_window_dims = {kept}, inserted_window_dims = {sorted({*inserted, *indexed})}, "
        f"input_batching_dims = {batching}, "
        f"scatter_indices_batching_dims = {[places.index(before[dim]) for dim in old]}, "
        f"scatter_dims_to_operand_dims = {indexed}, index_vector_dim = {len(shape)}>"
    )
    op.attributes["indices_are_sorted"] = ir.BoolAttr.get(False)


PASS = Pass(
    name="flatten-scatters",
    summary="scatter batched windows along indexed axes element by element",
    description=__doc__,
    run=flatten_scatters,
)
