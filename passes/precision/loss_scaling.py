"""Scale the loss while it is differentiated, so that small gradients do not vanish in float16.

float16 has no positive number below 6e-8. All gradients are proportional to the cotangent that the backward pass starts
with, 1.0 in the traced step. This pass makes the cotangent a scale, and divides everything that depends on it by the
scale before the update: gradients, and derivatives by pre-activations where an optimizer takes them.

The scale is part of the state:

- If any gradient is infinite or NaN, the step leaves the state as it was and halves the scale, down to 1. Only the
  count from which the next random key is made goes on.
- After `interval` steps in a row with finite gradients, the step doubles the scale, up to 2^24.

Every scale is a power of two, so that scaling rounds nothing. The loss that the step returns is not scaled.
"""

from __future__ import annotations

from sonew_compiled import contract
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import role_indices, text_attribute
from sonew_compiled.passes.ir.calls import callee
from sonew_compiled.passes.ir.convert import converted
from sonew_compiled.passes.ir.dependence import dependent_results
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.state import add_state, functions_of_state, state_attributes
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.ir.uses import Readers, owner
from sonew_compiled.passes.record import Option, Pass

SCALE = "precision/loss_scale"
GOOD_STEPS = "precision/good_steps"
"""The count of steps in a row with finite gradients since the scale last changed."""

GRADIENTS = contract.merged_name(contract.TRAIN_STEP, contract.GRADIENTS)
SMALLEST_SCALE = 1.0
LARGEST_SCALE = 2.0**24


def loss_scaling(module: ir.Module, *, initial: int, interval: int) -> None:
    """Scale the gradients of `train_step`, and keep the scale in its state.

    Raises:
        UsageError: there is no `init` or no `train_step` that calls the gradients with a constant cotangent, or an
            option is out of range.
    """
    if not 1 <= initial <= LARGEST_SCALE or initial & (initial - 1):
        raise UsageError(f"loss-scaling: the initial scale is {initial}; give a power of two up to {LARGEST_SCALE:.0f}")
    if interval < 1:
        raise UsageError(f"loss-scaling: the interval is {interval}; give a positive number of steps")
    init, step = functions_of_state(module, "loss-scaling")
    call = _gradients_call(step)
    scale = add_state(init, step, SCALE, initial, ir.F32Type.get())
    good = add_state(init, step, GOOD_STEPS, 0, ir.IntegerType.get_signless(32))
    call.operands[len(call.operands) - 1] = scale
    by_name = {function.name: function for function in functions(module)}
    scaled = dependent_results(by_name[GRADIENTS], frozenset({len(call.operands) - 1}), by_name)
    gradients = [
        each
        for i, each in enumerate(call.results)
        if i > 0 and i in scaled and isinstance(element_type(each), ir.FloatType)
    ]
    readers = [Readers(gradient) for gradient in gradients]
    with ir.InsertionPoint.after(call):
        # A model's own parameters of 16 bits have gradients of 16 bits.
        wide = [converted(each, ir.F32Type.get()) for each in gradients]
        finite = _all_finite(wide)
        inverse = build.elementwise("divide", build.constant(1.0, ir.F32Type.get()), scale)
        for gradient, widened, update in zip(gradients, wide, readers, strict=True):
            unscaled = build.elementwise("multiply", widened, build.broadcast(inverse, shape_of(gradient)))
            update.redirect(converted(unscaled, element_type(gradient)))
    with ir.InsertionPoint(step.terminator):
        _keep_state_unless(finite, step)
        new_scale, new_good = _next_scale(finite, scale, good, interval)
    step.add_result(new_scale, state_attributes(SCALE))
    step.add_result(new_good, state_attributes(GOOD_STEPS))
    init.finish()
    step.finish()


def _gradients_call(step: Function) -> ir.Operation:
    for op in step.block.operations:
        call = op.operation
        if call.name == "func.call" and callee(call) == GRADIENTS:
            cotangent = call.operands[len(call.operands) - 1]
            maker = owner(cotangent)
            is_constant = maker is not None and maker.name == "stablehlo.constant"
            if is_constant and cotangent.type == ir.RankedTensorType.get((), ir.F32Type.get()):
                return call
    raise UsageError(
        f"loss-scaling: train_step does not call @{GRADIENTS} with a constant float32 cotangent as its last"
    )


def _all_finite(gradients: list[ir.Value]) -> ir.Value:
    """Whether no element is infinite or NaN. The exponent's bits tell, in the same way on every target."""
    zero = build.constant(0, build.u32())
    largest = zero
    for gradient in gradients:
        magnitude = build.elementwise("and", build.bitcast(gradient, build.u32()), 0x7FFFFFFF)
        largest = build.elementwise("maximum", largest, build.reduce_all("maximum", magnitude, zero))
    return build.compare("LT", largest, build.like(0x7F800000, largest), "UNSIGNED")


def _keep_state_unless(finite: ir.Value, step: Function) -> None:
    """Return the state unchanged unless `finite` holds."""
    names = [text_attribute(each, contract.NAME_ATTRIBUTE) for each in step.argument_attributes]
    for index in role_indices(step.result_attributes, contract.UNDONE_ROLES):
        old = step.arguments[names.index(text_attribute(step.result_attributes[index], contract.NAME_ATTRIBUTE))]
        step.terminator.operands[index] = build.select(finite, step.returned[index], old)


def _next_scale(finite: ir.Value, scale: ir.Value, good: ir.Value, interval: int) -> tuple[ir.Value, ir.Value]:
    """The scale and the count of good steps after this one."""
    f32 = ir.F32Type.get()
    one_more = build.elementwise("add", good, 1)
    enough = build.compare("GE", one_more, build.like(interval, one_more), "SIGNED")
    doubled = build.elementwise("multiply", scale, build.constant(2.0, f32))
    doubled = build.elementwise("minimum", doubled, build.constant(LARGEST_SCALE, f32))
    halved = build.elementwise("multiply", scale, build.constant(0.5, f32))
    halved = build.elementwise("maximum", halved, build.constant(SMALLEST_SCALE, f32))
    zero = build.like(0, good)
    new_scale = build.select(finite, build.select(enough, doubled, scale), halved)
    new_good = build.select(finite, build.select(enough, zero, one_more), zero)
    return new_scale, new_good


PASS = Pass(
    name="loss-scaling",
    summary="scale the loss while it is differentiated",
    description=__doc__,
    run=loss_scaling,
    options=(
        Option(
            name="initial",
            default=2**15,
            help="the scale of the first step, a power of two",
            read=int,
        ),
        Option(
            name="interval",
            default=200,
            help="steps in a row with finite gradients after which the scale doubles",
            read=int,
        ),
    ),
)
