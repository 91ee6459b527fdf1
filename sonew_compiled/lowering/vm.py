"""What IREE's `vm` dialect is read and written with; its Python bindings have no classes for it."""

from __future__ import annotations

from typing import Any


def operations_in(module: Any) -> list[Any]:
    """Every operation, within regions as well."""
    import iree.compiler.ir as ir

    found: list[Any] = []

    def visit(op: Any) -> Any:
        found.append(op)
        return ir.WalkResult.ADVANCE

    module.walk(visit)
    return found


def constant(value: int) -> Any:
    """A new 32-bit constant, at the insertion point."""
    import iree.compiler.ir as ir

    i32 = ir.IntegerType.get_signless(32)
    attributes = {"value": ir.IntegerAttr.get(i32, value)}
    return ir.Operation.create("vm.const.i32", results=[i32], attributes=attributes).result
