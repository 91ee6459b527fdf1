"""Loops over an index, and arithmetic on indices, made at the insertion point."""

from __future__ import annotations

from collections.abc import Iterable

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.mlir import ir


class Loop:
    """An `scf.for` over an index that carries values along.

    Attributes:
      op: the loop.
      body: its block.
      variable: the index.
      arguments: the carried values in the body.
    """

    def __init__(self, first: ir.Value, end: ir.Value, step: ir.Value, values: Iterable[ir.Value]) -> None:
        values = list(values)
        kinds = [each.type for each in values]
        self.op = create("scf.for", [first, end, step, *values], kinds, regions=1)
        self.body = self.op.regions[0].blocks.append(index_type(), *kinds)
        self.variable, *self.arguments = self.body.arguments

    def finish(self, values: Iterable[ir.Value]) -> None:
        """End the body, and hand these values on to the next iteration."""
        create("scf.yield", list(values))

    @property
    def results(self) -> list[ir.Value]:
        """The carried values after the last iteration."""
        return list(self.op.results)


def index_type() -> ir.Type:
    """The type of an index."""
    return ir.IndexType.get()


def index_attribute(value: int) -> ir.Attribute:
    """An index, as an attribute."""
    return ir.IntegerAttr.get(index_type(), value)


def index(value: int) -> ir.Value:
    """A constant index."""
    return create("arith.constant", results=[index_type()], attributes={"value": index_attribute(value)}).result


def i32(value: int) -> ir.Value:
    """A constant integer of 32 bits."""
    i32 = ir.IntegerType.get_signless(32)
    return create("arith.constant", results=[i32], attributes={"value": ir.IntegerAttr.get(i32, value)}).result


def arith(name: str, left: ir.Value, right: ir.Value) -> ir.Value:
    """`arith.<name>` of two numbers of one type; `cmpi_slt` and `cmpi_sge` compare signed ones."""
    name, _, predicate = name.partition("_")
    if not predicate:
        return create(f"arith.{name}", [left, right], [left.type]).result
    number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), {"slt": 2, "sge": 5}[predicate])
    boolean = ir.IntegerType.get_signless(1)
    return create(f"arith.{name}", [left, right], [boolean], {"predicate": number}).result


def select(condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
    """`yes` where the condition, a boolean or a vector of them, holds, else `no`."""
    return create("arith.select", [condition, yes, no], [yes.type]).result
