"""Split large reductions into stages that each reduce a bounded number of elements.

Some compilers run out of stack or shared memory in a reduction over a whole weight, some crash, and others use one
core. A stage of a few thousand elements compiles everywhere and runs in parallel.

StableHLO leaves the order of a reduction open, and requires the initial value to be an identity of the body. So each
stage starts from that value, and a dimension that does not divide evenly is padded with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.record import Option, Pass


def split_reductions(module: ir.Module, *, limit: int) -> None:
    """Split every `stablehlo.reduce` that reduces more than `limit` elements into one result.

    Two kinds stay as they are: reductions of dynamic shape, whose size is not known, and reductions whose body computes
    in another element type than the operands', since the initial value cannot pad these.

    Raises:
        UsageError: the limit is less than 2, so that no stage would reduce anything.
    """
    if limit < 2:
        raise UsageError(f"split-reductions: the limit is {limit}, but must be at least 2")
    reductions: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "stablehlo.reduce" and _can_split(op):
            reductions.append(op)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    for op in reductions:
        _split(op, limit)


def _can_split(op: ir.Operation) -> bool:
    operands, results = list(op.operands), list(op.results)
    inputs = [ir.RankedTensorType(each.type) for each in operands[: len(results)]]
    elements = [each.element_type for each in inputs]
    return (
        all(each.has_static_shape and each.encoding is None for each in inputs)
        and elements == [ir.ShapedType(each.type).element_type for each in operands[len(results) :]]
        and elements == [ir.ShapedType(each.type).element_type for each in results]
    )


def _split(op: ir.Operation, limit: int) -> None:
    """Replace one reduction by its stages, if it needs more than one."""
    count = len(op.results)
    values, inits = list(op.operands)[:count], list(op.operands)[count:]
    dims = sorted(ir.DenseI64ArrayAttr(op.attributes["dimensions"]))
    if math.prod(shape_of(values[0])[dim] for dim in dims) <= limit:
        return
    with ir.InsertionPoint(op), op.location:
        while dims:
            shape = shape_of(values[0])
            stage = _innermost(shape, dims, limit)
            if not stage:
                if dims == list(range(dims[0], dims[-1] + 1)):
                    shape = [*shape[: dims[0]], math.prod(shape[dim] for dim in dims), *shape[dims[-1] + 1 :]]
                    dims = dims[:1]
                    values = [build.reshape(value, shape) for value in values]
                dim = dims[-1]
                outer, inner = _factors(shape[dim], limit)
                none, missing = [0] * len(shape), [0] * len(shape)
                missing[dim] = outer * inner - shape[dim]
                values = [build.pad(value, init, none, missing) for value, init in zip(values, inits, strict=True)]
                values = [build.reshape(value, [*shape[:dim], outer, inner, *shape[dim + 1 :]]) for value in values]
                dims, stage = [*dims, dim + 1], [dim + 1]
            values = build.reduce_as(op, values, stage)
            dims = [dim - sum(done < dim for done in stage) for dim in dims if dim not in stage]
    for old, new in zip(op.results, values, strict=True):
        old.replace_all_uses_with(new)
    op.erase()


def _innermost(shape: Sequence[int], dims: Sequence[int], limit: int) -> list[int]:
    """Return as many of the innermost dimensions as one stage can reduce.

    Return none if two or more stages would follow that stage, while cutting the dimensions differently leaves only one.
    """
    stage: list[int] = []
    size = 1
    for dim in reversed(dims):
        if size * shape[dim] > limit:
            break
        stage, size = [dim, *stage], size * shape[dim]
    total = math.prod(shape[dim] for dim in dims)
    adjacent = dims[-1] - dims[0] + 1 == len(dims)
    if adjacent and size < total and math.ceil(total / size) > limit and len(stage) < len(dims):
        return []
    return stage


def _factors(size: int, limit: int) -> tuple[int, int]:
    """Cut a dimension of more than `limit` elements into (outer, inner), inner at most `limit`.

    The two should be about equal, or the inner about `limit` if the outer has to be the larger. The cut that needs the
    least padding is taken, and among several the one nearest to that aim.
    """
    aim = min(limit, math.isqrt(size - 1) + 1)
    least = max(2, aim // 2)
    if size <= limit * limit:
        least = max(least, -(-size // limit))  # so that the outer needs no more than one stage
    candidates = range(least, min(limit, 2 * aim) + 1)
    inner = min(candidates, key=lambda each: (-size % each, abs(math.log(each / aim))))
    return -(-size // inner), inner


PASS = Pass(
    name="split-reductions",
    summary="reduce in bounded stages",
    description=__doc__,
    run=split_reductions,
    options=(
        Option(
            name="limit",
            default=4096,
            help="the most elements that one stage reduces to one result",
            read=int,
        ),
    ),
)
