"""Store booleans as 32-bit integers, for a target whose code stores them wrongly.

IREE 3.13 stores booleans as bytes. On a Vulkan device without storage of less than 32 bits, its code writes several at
once and loses neighbours: in a concatenation, such as a shifted mask, and wherever one kernel writes booleans that
others read. So operations that move booleans move integers instead. A boolean that is read more than once is an integer
behind a barrier, without which IREE would store the boolean again.
"""

from __future__ import annotations

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, has_element, shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Pass

_MOVES = ("stablehlo.concatenate", "stablehlo.slice", "stablehlo.pad")


def widen_booleans(module: ir.Module) -> None:
    """Make booleans that are moved, or read more than once, integers 0 or 1; scalars stay booleans."""
    boolean, wide = ir.IntegerType.get_signless(1), ir.IntegerType.get_signless(32)
    for function in functions(module):
        integers: dict[ir.Value, ir.Value] = {}
        for op in operations_in(function.op):
            if op.name not in _MOVES or element_type(op.results[0]) != boolean:
                continue
            with ir.InsertionPoint(op):
                operands = [integers[each] if each in integers else convert(each, wide) for each in op.operands]
                moved = op.clone()
                for index, operand in enumerate(operands):
                    moved.operands[index] = operand
                moved.results[0].set_type(ir.RankedTensorType.get(ir.ShapedType(op.results[0].type).shape, wide))
                back = build.compare("NE", moved.results[0], build.like(0, moved.results[0]), "SIGNED")
            op.results[0].replace_all_uses_with(back)
            integers[back] = moved.results[0]
            op.erase()
        for op in operations_in(function.op):
            for value in op.results:
                uses = list(value.uses)
                if value in integers or len(uses) < 2 or op.parent != function.op or not _is_boolean(value):
                    continue
                with ir.InsertionPoint.after(op):
                    (number,) = build.apart([convert(value, wide)])
                    back = build.compare("NE", number, build.like(0, number), "SIGNED")
                for use in uses:
                    use.owner.operation.operands[use.operand_number] = back
        for back in reversed(integers):
            made = owner(back)
            if made is not None and not list(back.uses):
                made.erase()


def _is_boolean(value: ir.Value) -> bool:
    return has_element(value, ir.IntegerType.get_signless(1)) and bool(shape_of(value))


PASS = Pass(
    name="widen-booleans",
    summary="store booleans as 32-bit integers",
    description=__doc__,
    run=widen_booleans,
)
