"""Do 16-bit matrix products and convolutions in float32, for a machine that has no units for them.

The operands are widened, and the product runs in float32. That is exact: the product of two such numbers fits float32,
and the sums are float32 either way. Without units, native code for 16-bit operands is slower.

If the processor has units for a type (`native`), its matrix products stay as they are. Convolutions do not, because
IREE's code for them does not use the units.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.convert import compute_in_float32
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.operations import CONTRACTIONS
from sonew_compiled.passes.ir.types import element_type, is_half
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import NATIVE, Pass


def emulate_contractions(module: ir.Module, *, native: str) -> None:
    """Widen the operands of every contraction with 16-bit ones; a 16-bit result is rounded from the float32 one.

    Args:
      module: the module, changed in place.
      native: `bf16` or `f16`, the operand type of matrix products that stay as they are; or `none`.
    """
    for op in operations_in(module.operation):
        if op.name not in CONTRACTIONS or not any(is_half(element_type(each)) for each in op.operands):
            continue
        if op.name != "stablehlo.dot_general" or any(str(element_type(each)) != native for each in op.operands):
            compute_in_float32(op)


PASS = Pass(
    name="emulate-contractions",
    summary="do 16-bit matrix products in float32",
    description=__doc__,
    run=emulate_contractions,
    options=(NATIVE,),
)
