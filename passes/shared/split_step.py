"""Cut a step at the seam between the gradients and the update, for micro-batches.

Each micro-batch gives a bucket: one float32 vector of the loss and all signals that the gradients pass to the update.
The caller adds the buckets, and the update takes the sum:

    train_step(state, batch, rate)  gets beside it  gradients(some of the state, batch) -> bucket
                                                    update(sum of buckets, state, rate) -> state, loss

Operations before the call of the gradients go to the function that needs their results, or to both. All others go to
the update, which works on the mean over the micro-batches: it undoes the scale of a loss, checks that all gradients are
finite, and rounds the state. 16-bit gradients are widened into the bucket, which is exact, and rounded after the mean.

The bucket has the loss first, and the signals in the order in which they are computed: then IREE 3.13 computes each in
its place in the bucket, which it otherwise copies there. Zeros between them let each begin at a multiple of 64 bytes.

With `exchange=bf16` all signals but the loss are rounded to bfloat16 in the bucket, still as float32 numbers, so that
workers can send half of each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from sonew_compiled import contract
from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import role_indices
from sonew_compiled.passes.ir.calls import callee
from sonew_compiled.passes.ir.convert import converted
from sonew_compiled.passes.ir.exports import begin_export, finish_export, label, without_donation
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.rounding import rounded
from sonew_compiled.passes.ir.slices import copy_operations, slice_to
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.record import Option, Pass

_GRADIENTS = contract.merged_name(contract.TRAIN_STEP, contract.GRADIENTS)
# A signal begins at a multiple of so many numbers, 64 bytes. IREE 3.13 takes that for granted: its code for Vulkan
# reads and writes wrong numbers in a part of a buffer that begins elsewhere.
_ALIGNED = 16
_FLOATS = ("bf16", "f16", "f32")


def split_step(module: ir.Module, *, count: int, exchange: str) -> None:
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
        raise UsageError("split-step needs a function train_step")
    seam = [op.operation for op in step.block.operations if _is_seam(op.operation)]
    if len(seam) != 1:
        raise UsageError(f"split-step: train_step calls @{_GRADIENTS} {len(seam)} times, not once")
    signals = _signals(seam[0], by_name[_GRADIENTS])
    with ir.InsertionPoint.at_block_begin(module.body):
        _gradients(step, seam[0], signals, exchange)
        _update(step, seam[0], signals, count)


def _is_seam(op: ir.Operation) -> bool:
    return bool(op.name == "func.call" and callee(op) == _GRADIENTS)


def _signals(call: ir.Operation, gradients: Function) -> list[ir.Value]:
    """The results of the gradients that go into the bucket, the loss first, and the others as they are computed."""
    for number, value in enumerate(call.results):
        if str(element_type(value)) not in _FLOATS:
            raise UsageError(
                f"split-step: result {number} of @{_GRADIENTS} is {value.type}, which cannot be summed over "
                "micro-batches; give floating-point numbers"
            )
    if not call.results or shape_of(call.results[0]):
        raise UsageError(f"split-step: the first result of @{_GRADIENTS} is not the loss, a scalar")
    places = {op.operation: place for place, op in enumerate(gradients.block.operations)}
    made = [places.get(owner(value), -1) for value in gradients.returned]
    loss, *others = range(len(made))
    return [call.results[number] for number in (loss, *sorted(others, key=made.__getitem__))]


def _gradients(step: Function, call: ir.Operation, signals: Sequence[ir.Value], exchange: str) -> None:
    needed = slice_to(call.operands, stop=())
    taken = [index for index, value in enumerate(step.arguments) if value in needed.leaves]
    attributes = [without_donation(step.argument_attributes[index]) for index in taken]
    function, block = begin_export(contract.GRADIENTS, [step.arguments[index].type for index in taken])
    with ir.InsertionPoint(block):
        known = dict(zip((step.arguments[index] for index in taken), block.arguments, strict=True))
        copy_operations(step.block, [*needed.operations, call], known)
        loss, *others = [converted(known[value], ir.F32Type.get()) for value in signals]
        if exchange == "bf16":
            others = [rounded(value, ir.BF16Type.get()) for value in others]
        parts: list[ir.Value] = []
        for value in (loss, *others):
            if gap := -sum(shape_of(each)[0] for each in parts) % _ALIGNED:
                parts.append(build.constant(0, ir.F32Type.get(), [gap]))
            parts.append(build.reshape(value, [math.prod(shape_of(value))]))
        bucket = build.concatenate(parts, 0)
        build.create("func.return", [bucket])
    finish_export(function, attributes, [label(contract.BUCKET, Role.GRADIENT)])


def _update(step: Function, call: ir.Operation, signals: Sequence[ir.Value], count: int) -> None:
    needed = slice_to(step.returned, stop=signals)
    batch = [step.arguments[index] for index in role_indices(step.argument_attributes, (Role.BATCH,))]
    if any(value in needed.leaves for value in batch):
        raise UsageError("split-step: the update reads the batch itself; only the gradients may")
    taken = [index for index, value in enumerate(step.arguments) if value not in batch]
    sizes = [math.prod(shape_of(value)) for value in signals]
    *starts, end = itertools.accumulate(sizes[:-1], lambda start, size: start + size + -size % _ALIGNED, initial=0)
    bucket_type = ir.RankedTensorType.get([end + sizes[-1]], ir.F32Type.get())
    function, block = begin_export(contract.UPDATE, [bucket_type, *(step.arguments[index].type for index in taken)])
    with ir.InsertionPoint(block):
        bucket, *rest = block.arguments
        known = dict(zip((step.arguments[index] for index in taken), rest, strict=True))
        for value, start, size in zip(signals, [*starts, end], sizes, strict=True):
            if value in needed.leaves:
                total = build.reshape(build.slice_of(bucket, [start], [start + size]), shape_of(value))
                # A quotient, and not a product with the reciprocal, is the mean that is nearest.
                mean = build.elementwise("divide", total, build.like(count, total)) if count > 1 else total
                known[value] = converted(mean, element_type(value))
        copy_operations(step.block, needed.operations, known)
        build.create("func.return", [known[value] for value in step.returned])
    attributes = [label(contract.BUCKET, Role.GRADIENT), *(step.argument_attributes[index] for index in taken)]
    finish_export(function, attributes, step.result_attributes)


def _read_exchange(text: str) -> str:
    if text not in ("f32", "bf16"):
        raise ValueError("give f32 or bf16")
    return text


PASS = Pass(
    name="split-step",
    summary="cut a step into its gradients and its update",
    description=__doc__,
    run=split_step,
    options=(
        Option(
            name="count", default=1, help="the micro-batches in a batch, over which the update takes the mean", read=int
        ),
        Option(
            name="exchange",
            default="f32",
            help="the type to which signals are rounded, f32 or bf16",
            read=_read_exchange,
        ),
    ),
)
