"""Cut a step at the seam between the gradients and the update, for micro-batches.

A batch that does not fit into memory, or that several workers share, is divided into micro-batches. Each gives a
bucket: one float32 vector of the loss and all signals that the gradients pass to the update. The caller adds the
buckets, and the update takes the sum:

    train_step(state, batch, rate)  gets beside it  gradients(some of the state, batch) -> bucket
                                                    update(sum of buckets, state, rate) -> state, loss

Operations of the step before its call of the gradients go to the function that needs their results, or to both: those
that widen a stored parameter, for example. All other operations go to the update. It undoes the scale of a loss, checks
that all gradients are finite, and rounds the state, for the mean over all micro-batches. 16-bit gradients are widened
into the bucket, which is exact, and rounded again after the mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from sonew_compiled import contract
from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import Attributes, role_indices
from sonew_compiled.passes.ir.calls import callee
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Option, Pass

_GRADIENTS = contract.merged_name(contract.TRAIN_STEP, contract.GRADIENTS)
_FLOATS = ("bf16", "f16", "f32")


def split_step(module: ir.Module, *, count: int) -> None:
    """Add `gradients` and `update`, made from `train_step`, which stays.

    Raises:
        UsageError: the step does not call its gradients exactly once, a signal cannot be summed, the update reads the
            batch itself, or an option is out of range.
    """
    if count < 1:
        raise UsageError(f"split-step: the count is {count}; give the micro-batches in a batch, 1 or more")
    by_name = {function.name: function for function in functions(module)}
    step = by_name.get(contract.TRAIN_STEP)
    if step is None:
        raise UsageError("split-step wants a function train_step")
    seam = [op.operation for op in step.block.operations if _is_seam(op.operation)]
    if len(seam) != 1:
        raise UsageError(f"split-step: train_step calls @{_GRADIENTS} {len(seam)} times, not once")
    signals = _signals(seam[0])
    with ir.InsertionPoint.at_block_begin(module.body):
        _gradients(step, seam[0], signals)
        _update(step, seam[0], signals, count)


def _is_seam(op: ir.Operation) -> bool:
    return bool(op.name == "func.call" and callee(op) == _GRADIENTS)


def _signals(call: ir.Operation) -> list[ir.Value]:
    """The results of the gradients that go into the bucket, the loss first."""
    for number, value in enumerate(call.results):
        if str(element_type(value)) not in _FLOATS:
            raise UsageError(
                f"split-step: result {number} of @{_GRADIENTS} is {value.type}, which cannot be summed over "
                "micro-batches; give floating-point numbers"
            )
    if not call.results or shape_of(call.results[0]):
        raise UsageError(f"split-step: the first result of @{_GRADIENTS} is not the loss, a scalar")
    return list(call.results)


def _gradients(step: Function, call: ir.Operation, signals: Sequence[ir.Value]) -> None:
    needed = _slice(call.operands, stop=())
    taken = [index for index, value in enumerate(step.arguments) if value in needed.leaves]
    attributes = [_without_donation(step.argument_attributes[index]) for index in taken]
    function, block = _exported(contract.GRADIENTS, [step.arguments[index].type for index in taken])
    with ir.InsertionPoint(block):
        known = dict(zip((step.arguments[index] for index in taken), block.arguments, strict=True))
        _copy([*needed.operations, call], step, known)
        parts = [build.reshape(_as(known[value], ir.F32Type.get()), [math.prod(shape_of(value))]) for value in signals]
        bucket = build.concatenate(parts, 0)
        build.create("func.return", [bucket])
    _finish(function, attributes, [_label(contract.BUCKET, Role.GRADIENT)])


def _update(step: Function, call: ir.Operation, signals: Sequence[ir.Value], count: int) -> None:
    needed = _slice(step.returned, stop=signals)
    batch = [step.arguments[index] for index in role_indices(step.argument_attributes, (Role.BATCH,))]
    if any(value in needed.leaves for value in batch):
        raise UsageError("split-step: the update reads the batch itself; only the gradients may")
    taken = [index for index, value in enumerate(step.arguments) if value not in batch]
    size = sum(math.prod(shape_of(value)) for value in signals)
    bucket_type = ir.RankedTensorType.get([size], ir.F32Type.get())
    function, block = _exported(contract.UPDATE, [bucket_type, *(step.arguments[index].type for index in taken)])
    with ir.InsertionPoint(block):
        bucket, *rest = block.arguments
        known = dict(zip((step.arguments[index] for index in taken), rest, strict=True))
        start = 0
        for value in signals:
            end = start + math.prod(shape_of(value))
            if value in needed.leaves:
                total = build.slice_of(bucket, [start], [end])
                # A quotient, and not a product with the reciprocal, is the mean that is nearest.
                mean = build.elementwise("divide", total, build.like(count, total)) if count > 1 else total
                known[value] = _as(build.reshape(mean, shape_of(value)), element_type(value))
            start = end
        _copy(needed.operations, step, known)
        build.create("func.return", [known[value] for value in step.returned])
    attributes = [_label(contract.BUCKET, Role.GRADIENT), *(step.argument_attributes[index] for index in taken)]
    _finish(function, attributes, step.result_attributes)


class _Slice:
    """The computation of some values: operations at the top level of a function, and the values they start from."""

    def __init__(self) -> None:
        self.operations: set[ir.Operation] = set()
        self.leaves: set[ir.Value] = set()


def _slice(values: Iterable[ir.Value], *, stop: Collection[ir.Value]) -> _Slice:
    """Follow values back to the function's arguments, and not beyond those in `stop`."""
    found, pending = _Slice(), list(values)
    while pending:
        value = pending.pop()
        maker = owner(value)
        if maker is None or value in stop:
            found.leaves.add(value)
        elif maker not in found.operations:
            found.operations.add(maker)
            pending += _operands(maker)
    return found


def _operands(op: ir.Operation) -> list[ir.Value]:
    """The values that an operation reads, and those from outside that its regions read."""
    inner = operations_in(op)
    made = {result for each in inner for result in each.results}
    blocks = [block for each in (op, *inner) for region in each.regions for block in region.blocks]
    made |= {argument for block in blocks for argument in block.arguments}
    return [value for each in (op, *inner) for value in each.operands if value not in made]


def _copy(operations: Collection[ir.Operation], step: Function, known: dict[ir.Value, ir.Value]) -> None:
    """Copy operations of the step to the insertion point, in their order, and add their results to `known`."""
    for op in [each.operation for each in step.block.operations]:
        if op in operations:
            copy = op.clone()
            for each in (copy, *operations_in(copy)):
                for index, operand in enumerate(each.operands):
                    each.operands[index] = known.get(operand, operand)
            known |= zip(op.results, copy.results, strict=True)


def _as(value: ir.Value, into: ir.Type) -> ir.Value:
    return value if element_type(value) == into else convert(value, into)


def _exported(name: str, arguments: Sequence[ir.Type]) -> tuple[ir.Operation, ir.Block]:
    """A public function at the insertion point, still without a body and results."""
    function = build.create(
        "func.func",
        attributes={
            "sym_name": ir.StringAttr.get(name),
            "sym_visibility": ir.StringAttr.get("public"),
            "function_type": ir.TypeAttr.get(ir.FunctionType.get(list(arguments), [])),
        },
        regions=1,
    )
    return function, function.regions[0].blocks.append(*arguments)


def _finish(function: ir.Operation, arguments: Sequence[Attributes], results: Sequence[Attributes]) -> None:
    made = Function(function)
    made.argument_attributes, made.result_attributes = list(arguments), list(results)
    made.finish()


def _label(name: str, role: Role) -> Attributes:
    return {contract.NAME_ATTRIBUTE: ir.StringAttr.get(name), contract.ROLE_ATTRIBUTE: ir.StringAttr.get(role)}


def _without_donation(attributes: Attributes) -> Attributes:
    return {key: value for key, value in attributes.items() if key != contract.DONATE_ATTRIBUTE}


PASS = Pass(
    name="split-step",
    summary="cut a step into its gradients and its update",
    description=__doc__,
    run=split_step,
    options=(
        Option(
            name="count", default=1, help="the micro-batches in a batch, over which the update takes the mean", read=int
        ),
    ),
)
