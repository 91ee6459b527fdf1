"""The types of elements in memory and in registers, and stores past the caches."""

from __future__ import annotations

import math

from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of, width_of

LINE = 64
"""The bytes of a cache line, and the alignment that IREE gives the memory of a dispatch."""


def lane_type(element: ir.Type) -> ir.Type:
    """An element's type in a register: 16-bit floats are integers of the same bits, and integers are signless."""
    if isinstance(element, ir.F32Type | ir.F64Type):
        return element
    return ir.IntegerType.get_signless(width_of(element))


def memory_type(element: ir.Type) -> ir.Type:
    """An element's type in memory: as in a register, except that booleans are bytes."""
    return ir.IntegerType.get_signless(8) if width_of(element) == 1 else lane_type(element)


def buffer_type(size: int, element: ir.Type) -> ir.Type:
    """The type of a buffer of `size` elements."""
    return ir.MemRefType.get([size], memory_type(element))


def size_of(element: ir.Type) -> int:
    """The bytes of an element in memory."""
    return max(width_of(element), 8) // 8


def bytes_of(value: ir.Value) -> int:
    """The bytes that a vector or a buffer takes in memory."""
    return math.prod(shape_of(value)) * size_of(element_type(value))


def bypass_caches(store: ir.Operation) -> None:
    """Make a store of whole vectors non-temporal; leave stores in a mask as they are."""
    if store.name != "vector.store":
        return
    alignment = min(bytes_of(store.operands[0]), LINE)
    store.attributes["nontemporal"] = ir.BoolAttr.get(True)
    # Without an alignment, code for x86 stores the numbers one by one.
    store.attributes["alignment"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), alignment)
