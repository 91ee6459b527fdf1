"""Put the axes that a scatter indexes before those of its windows.

IREE 3.13 lowers a scatter whose indexed axis comes after a window to code that its own verifier refuses. `jax.vmap`
makes such a scatter of the gradient of an integer label's score.

    scatter(x[N, 1, C], windows of axis 1)  becomes  transpose(scatter(transpose(x)[N, C, 1], windows of axis 2))
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass


def transpose_scatters(module: ir.Module) -> None:
    """Transpose the operands of scatters whose indexed axes do not come first, and transpose the results back."""
    for op in operations_in(module.operation):
        if op.name == "stablehlo.scatter":
            _transpose(op)


def _transpose(op: ir.Operation) -> None:
    dimensions = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
    batching, indexed = list(dimensions.input_batching_dims), list(dimensions.scattered_dims_to_operand_dims)
    leading = [*batching, *indexed]
    windows = [dim for dim in range(len(shape_of(op.results[0]))) if dim not in leading]
    order = [*leading, *windows]
    # IREE compiles scatters without windows as they are. `flatten-scatters` leaves no window along an indexed axis.
    if order == sorted(order) or not windows or sorted(dimensions.inserted_window_dims) != sorted(indexed):
        return
    back = sorted(range(len(order)), key=order.__getitem__)
    first = list(range(len(batching), len(leading)))
    with ir.InsertionPoint(op):
        for position in range(len(op.results)):
            op.operands[position] = build.transpose(op.operands[position], order)
    op.attributes["scatter_dimension_numbers"] = ir.Attribute.parse(
        f"#stablehlo.scatter<update_window_dims = {list(dimensions.update_window_dims)}, "
        f"inserted_window_dims = {first}, input_batching_dims = {list(range(len(batching)))}, "
        f"scatter_indices_batching_dims = {list(dimensions.scatter_indices_batching_dims)}, "
        f"scatter_dims_to_operand_dims = {first}, index_vector_dim = {dimensions.index_vector_dim}>"
    )
    for result, given in zip(op.results, list(op.operands), strict=False):
        with ir.InsertionPoint.after(op):
            result.set_type(given.type)
            moved = build.transpose(result, back)
        result.replace_all_uses_except(moved, owner(moved))


PASS = Pass(
    name="transpose-scatters",
    summary="put the axes that a scatter indexes before those of its windows",
    description=__doc__,
    run=transpose_scatters,
)
