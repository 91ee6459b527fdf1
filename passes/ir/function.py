"""A function of a flat module, whose signature follows the changes of its arguments and results."""

from __future__ import annotations

from collections.abc import Mapping

from sonew_compiled.passes.ir.attributes import Attributes
from sonew_compiled.passes.ir.convert import convert, narrowed
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, with_element
from sonew_compiled.passes.ir.uses import Readers, operations_in


class Function:
    """A `func.func` of one block.

    The attributes of arguments and results are plain dictionaries; `finish` writes them and the type back.
    """

    def __init__(self, op: ir.OpView) -> None:
        self.op = op.operation
        self.block = self.op.regions[0].blocks[0]
        kind = ir.FunctionType(ir.TypeAttr(self.op.attributes["function_type"]).value)
        self.argument_attributes = self._attributes("arg_attrs", len(kind.inputs))
        self.result_attributes = self._attributes("res_attrs", len(kind.results))

    @property
    def name(self) -> str:
        """The symbol, without the `@`."""
        return symbol(self.op)

    @property
    def is_public(self) -> bool:
        """Whether it is an export."""
        attributes = self.op.attributes
        return "sym_visibility" not in attributes or ir.StringAttr(attributes["sym_visibility"]).value == "public"

    @property
    def arguments(self) -> list[ir.BlockArgument]:
        """The values that enter."""
        return list(self.block.arguments)

    @property
    def terminator(self) -> ir.Operation:
        """The `func.return`."""
        *_, last = self.block.operations
        return last.operation

    @property
    def returned(self) -> list[ir.Value]:
        """The values that leave."""
        return list(self.terminator.operands)

    def retype_argument(self, index: int, into: ir.Type) -> None:
        """Take argument `index` with element type `into`; its readers read it converted to the type it had."""
        argument = self.arguments[index]
        had = element_type(argument)
        argument.set_type(with_element(argument, into))
        readers = Readers(argument)
        with ir.InsertionPoint(self._first_of_its_own()):
            readers.redirect(convert(argument, had))

    def retype_result(self, index: int, into: ir.Type) -> None:
        """Give result `index` with element type `into`, rounded to nearest."""
        with ir.InsertionPoint(self.terminator):
            self.terminator.operands[index] = narrowed(self.returned[index], into)

    def add_argument(self, kind: ir.Type, attributes: Attributes) -> ir.Value:
        """Append an argument."""
        self.argument_attributes.append(attributes)
        return self.block.add_argument(kind, ir.Location.unknown())

    def add_result(self, value: ir.Value, attributes: Attributes) -> None:
        """Append a result."""
        self.result_attributes.append(attributes)
        old, values = self.terminator, [*self.returned, value]
        with ir.InsertionPoint(old):
            ir.Operation.create("func.return", operands=values)
        old.erase()

    def finish(self) -> None:
        """Write the signature that the block now has."""
        kind = ir.FunctionType.get([v.type for v in self.arguments], [v.type for v in self.returned])
        self.op.attributes["function_type"] = ir.TypeAttr.get(kind)
        for key, attributes in (("arg_attrs", self.argument_attributes), ("res_attrs", self.result_attributes)):
            if any(attributes):
                self.op.attributes[key] = ir.ArrayAttr.get([ir.DictAttr.get(each) for each in attributes])

    def _attributes(self, key: str, count: int) -> list[Attributes]:
        if key not in self.op.attributes:
            return [{} for _ in range(count)]
        return [{named.name: named.attr for named in ir.DictAttr(each)} for each in self.op.attributes[key]]

    def _first_of_its_own(self) -> ir.Operation:
        """The first operation that is no conversion of an argument; further conversions go before it."""
        for op in self.block.operations:
            operation = op.operation
            if operation.name != "stablehlo.convert" or not isinstance(operation.operands[0].owner, ir.Block):
                return operation
        raise AssertionError("a function ends with a return")


def functions(module: ir.Module) -> list[Function]:
    """Every function of a flat module that has a body, in order."""
    operations = [op for op in module.body.operations if op.operation.name == "func.func"]
    return [Function(op) for op in operations if op.operation.regions[0].blocks]


def symbol(op: ir.Operation) -> str:
    """The name of a function."""
    return str(ir.StringAttr(op.attributes["sym_name"]).value)


def erase_unused(function: Function) -> None:
    """Remove the operations at the top level whose results nothing reads, until there are none."""
    for op in reversed([each.operation for each in function.block.operations]):
        pure = op.name.startswith("stablehlo.") and op.name != "stablehlo.custom_call"
        if pure and not any(list(each.uses) for each in op.results):
            op.erase()


def copied(block: ir.Block, values: Mapping[ir.Value, ir.Value]) -> list[ir.Value]:
    """Copy a block's operations to the insertion point, and return the copies of its terminator's operands.

    The copies read `values` in place of the block's arguments and of values from outside.
    """
    known = dict(values)
    *body, last = block.operations
    for op in body:
        copy = op.operation.clone()
        # Regions may read values from outside.
        for each in (copy, *operations_in(copy)):
            for index, operand in enumerate(each.operands):
                each.operands[index] = known.get(operand, operand)
        known |= zip(op.operation.results, copy.results, strict=True)
    return [known.get(value, value) for value in last.operation.operands]
