"""The types of tensors: their elements and their shapes."""

from __future__ import annotations

from sonew_compiled.passes.ir.mlir import ir

_HALVES = ("bf16", "f16")


def element_type(value: ir.Value) -> ir.Type:
    """The element type of a tensor."""
    return ir.ShapedType(value.type).element_type


def shape_of(value: ir.Value) -> list[int]:
    """The sizes of a tensor's axes."""
    return list(ir.ShapedType(value.type).shape)


def has_element(value: ir.Value, element: ir.Type) -> bool:
    """Whether a value is a tensor of this element type."""
    return isinstance(value.type, ir.RankedTensorType) and value.type.element_type == element


def with_element(value: ir.Value, element: ir.Type) -> ir.Type:
    """The type of a tensor, with another element type."""
    return ir.RankedTensorType.get(ir.ShapedType(value.type).shape, element)


def is_half(element: ir.Type) -> bool:
    """Whether it is a floating-point type of 16 bits."""
    return str(element) in _HALVES


def is_float(kind: ir.Type) -> bool:
    """Whether it is a floating-point type that processors compute in: of 32 or 64 bits."""
    return isinstance(kind, ir.F32Type | ir.F64Type)


def width_of(element: ir.Type) -> int:
    """The bits of an element."""
    return int(element.width)
