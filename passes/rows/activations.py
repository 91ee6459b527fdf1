"""Finding the groups of activations: what elementwise operations make of products, without shifts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from sonew_compiled.passes.ir.broadcasts import row_of
from sonew_compiled.passes.ir.constants import SPLATS
from sonew_compiled.passes.ir.convert import source_in
from sonew_compiled.passes.ir.elementwise import is_function, is_vectorised
from sonew_compiled.passes.ir.function import Function
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, has_element, shape_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.groups import joined, members
from sonew_compiled.passes.rows.phase import Phase

# The elements of the smallest matrix whose kernel saves more than its start takes.
_ELEMENTS = 1 << 14

_MATRIX_AXES = 2

# Operations whose results IREE writes to memory as they are. It computes others where their results are read.
_WRITTEN = ("stablehlo.convolution", "stablehlo.dot_general", "flow.dispatch")


def activation_groups(function: Function, elements: int) -> list[RowGroup]:
    """The groups of a function that have a function or round to bfloat16.

    Args:
      function: the function, in which other groups have become kernels.
      elements: the elements of the smallest matrix that a kernel computes.
    """
    block = [op.operation for op in function.block.operations]
    found = members(block, max(elements, _ELEMENTS))
    sets = joined(found)
    by_root: dict[ir.Value, list[ir.Operation]] = {}
    for op, shift in found.items():
        if shift is None and len(shape_of(op.results[0])) >= _MATRIX_AXES:
            by_root.setdefault(sets.root(op.results[0]), []).append(op)
    levels = _levels(block)
    wanted = [each for each in by_root.values() if any(is_function(op) or _is_rounding(op) for op in each)]
    return [RowGroup(each, each, levels, ()) for each in wanted]


def is_activation(phase: Phase, *, native_bf16: bool) -> bool:
    """Whether a kernel is faster than IREE's code.

    It is if the phase has a function and a row that is broadcast, or stores what one instruction rounds to bfloat16.
    Integers are left to IREE: those of random numbers are made where they are read. So are constants.
    """
    inputs = phase.inputs()
    rows = [each for each in inputs if row_of(each) is not None]
    if len(rows) == len(inputs) or not all(each in rows or _is_in_memory(each, phase.known) for each in inputs):
        return False
    operations = phase.operations()
    if not all(isinstance(element_type(each), ir.FloatType) for each in (*inputs, *phase.scalars(), *phase.results)):
        return False
    if rows and any(map(is_function, operations)):
        return True
    return native_bf16 and any(_is_rounding(op) and op.results[0] in phase.stored for op in operations)


def _is_in_memory(value: ir.Value, known: Collection[ir.Value]) -> bool:
    """Whether the value is in memory without a kernel that reads it."""
    op = owner(value)
    while op is not None and op.name == "stablehlo.reshape":
        op = owner(op.operands[0])
    return op is None or value in known or op.name in _WRITTEN


def _is_rounding(op: ir.Operation) -> bool:
    """Whether it rounds float32 to bfloat16, other than back to the numbers that were widened."""
    narrow = ir.BF16Type.get()
    if op.name != "stablehlo.convert" or not has_element(op.results[0], narrow):
        return False
    return has_element(op.operands[0], ir.F32Type.get()) and source_in(op.operands[0], narrow) is None


def _levels(block: Sequence[ir.Operation]) -> Mapping[ir.Value, int]:
    """For each value, the most operations on the way to it that are not elementwise, such as products.

    What a function does before its products and after them has different levels, though the same matrices occur.
    """
    found: dict[ir.Value, int] = {}
    for op in block:
        read = {*op.operands, *(each for inner in operations_in(op) for each in inner.operands)}
        steps = not (op.name in (*SPLATS, "stablehlo.reshape") or _is_elementwise(op))
        level = max((found.get(each, 0) for each in read), default=0) + steps
        found |= dict.fromkeys(op.results, level)
    return found


def _is_elementwise(op: ir.Operation) -> bool:
    return len(op.results) == 1 and _tensors([*op.operands, *op.results]) and (is_vectorised(op) or is_function(op))


def _tensors(values: Iterable[ir.Value]) -> bool:
    return all(isinstance(each.type, ir.RankedTensorType) for each in values)
