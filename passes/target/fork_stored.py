"""Fork each result that a step both stores in place and reads again: one value to store, one to read.

IREE 3.13 writes a result straight into the buffer of a donated argument only if nothing else reads it. Otherwise it
computes the result in other memory and copies it in the end. Adding zero in the same dispatch makes the value that is
read another one, and changes nothing but the sign of a zero:

    s = f(...);  u = g(s);  return s       becomes       s = f(...);  s' = s + 0;  u = g(s');  return s
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import ALIASED
from sonew_compiled.passes.ir.calls import inline_calls
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.record import Pass


def fork_stored(module: ir.Module) -> None:
    """Fork each floating-point result that takes an argument's buffer and has other readers.

    Functions are inlined into the exports.
    """
    inline_calls(module)
    for function in functions(module):
        returned = function.returned
        for attributes in function.argument_attributes:
            if ALIASED not in attributes:
                continue
            stored, leaves = returned[ir.IntegerAttr(attributes[ALIASED]).value], function.terminator
            while (maker := owner(stored)) is not None and maker.name == "stablehlo.reshape":
                stored, leaves = maker.operands[0], maker
            is_read = any(use.owner.operation != leaves for use in stored.uses)
            if maker is None or not is_read or not isinstance(element_type(stored), ir.FloatType):
                continue
            build.add_zero(stored, but=[leaves])


PASS = Pass(
    name="fork-stored",
    summary="fork results that are stored in place and read again",
    description=__doc__,
    run=fork_stored,
)
