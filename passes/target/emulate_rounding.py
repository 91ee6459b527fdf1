"""Round to 16 bits by integer arithmetic, for a target whose conversions cannot be relied on.

IREE 3.13 drops some pairs of a rounding and a widening on processors, such as those in a fusion with `tanh`, and its
bytecode has no float16 at all. No compiler removes integer arithmetic on the bits of the float32. It rounds to nearest,
ties to even, and treats subnormal numbers, infinities and the sign of zero as a conversion does. A value that was
widened before needs no rounding. It is copied, since a product that IREE fuses with the widening takes twice as long.

If the products themselves take the 16-bit type (`native`), whatever reads the numbers in it reads the upper halves of
the rounded bits, since IREE would expand a conversion to integer arithmetic once more. It reads a copy, because IREE's
code for a rounding within the packing of a product's operand is ten times as slow as the two apart. A number that was
widened before is read as it was.

IREE folds a conversion of an integer to float32 and its rounding to bfloat16 into one, and LLVM makes that a call to a
library that IREE does not link. So zero is added in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import source_in
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.rounding import bf16_of, rounded
from sonew_compiled.passes.ir.types import element_type, has_element, is_half
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import NATIVE, Pass


def emulate_rounding(module: ir.Module, *, native: str) -> None:
    """Round before each conversion from float32 to 16 bits that the computation reads; drop conversions straight back.

    A conversion stays as it is if its result only leaves the function. If the result leaves the function and is read as
    well, integer arithmetic does the whole conversion. Its readers still widen the result, since they may read it back
    from memory.

    Args:
      module: the module, changed in place.
      native: `bf16`, the type of operands that products take as they are; or `none`.
    """
    wide = ir.F32Type.get()
    conversions = [op for op in operations_in(module.operation) if op.name == "stablehlo.convert"]
    if any(has_element(op.results[0], ir.BF16Type.get()) for op in conversions):
        _keep_apart_from_integers(conversions)
    for op in [each for each in conversions if has_element(each.operands[0], wide)]:
        into = element_type(op.results[0])
        readers = [use.owner.operation for use in op.results[0].uses]
        leaves = [each.name == "func.return" for each in readers]
        if not is_half(into) or all(leaves):
            continue
        with ir.InsertionPoint(op):
            source = source_in(op.operands[0], into)
            value = rounded(op.operands[0], into) if source is None else build.clone(op.operands[0])
            if any(leaves) and into == ir.BF16Type.get():
                op.results[0].replace_all_uses_with(bf16_of(build.bitcast(value, build.u32())))
                op.erase()
                continue
            op.operands[0] = value
            for reader in readers:
                if reader.name == "stablehlo.convert" and has_element(reader.results[0], wide):
                    reader.results[0].replace_all_uses_with(value)
                    reader.erase()
            if into == ir.BF16Type.get() and native == "bf16" and list(op.results[0].uses):
                narrow = build.clone(bf16_of(build.bitcast(value, build.u32()))) if source is None else source
                op.results[0].replace_all_uses_with(narrow)
        if not list(op.results[0].uses):
            op.erase()


def _keep_apart_from_integers(conversions: Sequence[ir.Operation]) -> None:
    """Add zero, which changes no number, to each float32 that an integer or a boolean is converted to."""
    for op in conversions:
        number = op.results[0]
        if has_element(number, ir.F32Type.get()) and isinstance(element_type(op.operands[0]), ir.IntegerType):
            build.add_zero(number)


PASS = Pass(
    name="emulate-rounding",
    summary="round to 16 bits by integer arithmetic",
    description=__doc__,
    run=emulate_rounding,
    options=(NATIVE,),
)
