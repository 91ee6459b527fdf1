"""A function of a flat module: what it takes and gives, and changing that with its signature kept in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from sonew_compiled.passes._mlir import ir

Attributes = dict[str, ir.Attribute]

ROLES = ("parameter", "optimizer")
"""What `sonew.role` says of a tensor of the training state."""


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
        """Take argument `index` with element type `into`, and give its readers what they had, by a conversion."""
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
        """Make the signature what the block says."""
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
        """The first operation that is no conversion of an argument: where another of them goes."""
        for op in self.block.operations:
            operation = op.operation
            if operation.name != "stablehlo.convert" or not isinstance(operation.operands[0].owner, ir.Block):
                return operation
        raise AssertionError("a function ends with a return")


class Readers:
    """The operations that read a value now, to be told apart from those that will."""

    def __init__(self, value: ir.Value) -> None:
        self._uses = [(use.owner.operation, use.operand_number) for use in value.uses]

    def redirect(self, value: ir.Value) -> None:
        """Make them read another value."""
        for operation, operand in self._uses:
            operation.operands[operand] = value


def functions(module: ir.Module) -> list[Function]:
    """Every function of a flat module that has a body, in order."""
    operations = [op for op in module.body.operations if op.operation.name == "func.func"]
    return [Function(op) for op in operations if op.operation.regions[0].blocks]


def symbol(op: ir.Operation) -> str:
    """The name of a function."""
    return str(ir.StringAttr(op.attributes["sym_name"]).value)


def text_attribute(attributes: Mapping[str, ir.Attribute], key: str) -> str:
    """The attribute's string, empty if there is none."""
    return str(ir.StringAttr(attributes[key]).value) if key in attributes else ""


def role_indices(attributes: Sequence[Attributes], roles: Iterable[str]) -> list[int]:
    """Which of the arguments or results are tensors of the state with one of these roles."""
    wanted = set(roles)
    return [index for index, each in enumerate(attributes) if text_attribute(each, "sonew.role") in wanted]


def callee(call: ir.Operation) -> str:
    """The name of the function that a `func.call` calls."""
    return str(ir.FlatSymbolRefAttr(call.attributes["callee"]).value)


def calls(function: Function) -> list[ir.Operation]:
    """Every call in the function's body, within regions as well."""
    return [op for op in operations_in(function.op) if op.name == "func.call"]


def owner(value: ir.Value) -> ir.Operation | None:
    """The operation that makes a value; none makes an argument."""
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


def at_top(op: ir.Operation) -> ir.Operation:
    """The operation of a function's own block that this one is, or is in a region of."""
    while (parent := op.parent) is not None and parent.name != "func.func":
        op = parent
    return op


def erase_unused(function: Function) -> None:
    """Remove operations at the top level of whose results nothing is read, and then those that only these read."""
    for op in reversed([each.operation for each in function.block.operations]):
        pure = op.name.startswith("stablehlo.") and op.name != "stablehlo.custom_call"
        if pure and not any(list(each.uses) for each in op.results):
            op.erase()


def splat_of(value: ir.Value) -> ir.Attribute | None:
    """The number of a constant that consists of one, None if the value is no such constant."""
    op = owner(value)
    if op is None or op.name != "stablehlo.constant":
        return None
    numbers = ir.DenseElementsAttr(op.attributes["value"])
    return numbers.get_splat_value() if numbers.is_splat else None


def copied(block: ir.Block, values: Mapping[ir.Value, ir.Value]) -> list[ir.Value]:
    """Copy what a block computes to the insertion point, and return what its terminator hands on.

    `values` are what the copies read in the place of its arguments, and of values from outside.
    """
    known = dict(values)
    *body, last = block.operations
    for op in body:
        copy = op.operation.clone()
        # Regions may read what is outside of them.
        for each in (copy, *operations_in(copy)):
            for index, operand in enumerate(each.operands):
                each.operands[index] = known.get(operand, operand)
        known |= zip(op.operation.results, copy.results, strict=True)
    return [known.get(value, value) for value in last.operation.operands]


def readers_beyond(op: ir.Operation, goes_on: Callable[[ir.Operation], bool]) -> Iterator[ir.Operation]:
    """Every operation, once, that reads the result of this one or of a reader that `goes_on`; these have one result."""
    seen, waiting = {op}, [op]
    while waiting:
        for use in waiting.pop().results[0].uses:
            user = use.owner.operation
            if user not in seen:
                seen.add(user)
                if goes_on(user):
                    waiting.append(user)
                yield user


def operations_in(root: ir.Operation) -> list[ir.Operation]:
    """Every operation inside, within regions as well, in order."""
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op != root:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found


def reachable(module: ir.Module, roots: Iterable[str]) -> set[str]:
    """The functions of these names and all that they call, directly or not."""
    by_name = {function.name: function for function in functions(module)}
    seen: set[str] = set()
    pending = [name for name in roots if name in by_name]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += [callee(call) for call in calls(by_name[name])]
    return seen


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


def convert(value: ir.Value, into: ir.Type) -> ir.Value:
    """Convert a tensor to another element type at the insertion point."""
    kind = with_element(value, into)
    return ir.Operation.create("stablehlo.convert", results=[kind], operands=[value]).result


def narrowed(value: ir.Value, into: ir.Type) -> ir.Value:
    """`value` rounded to the narrower type `into`: what it was widened from, if it was, else by a conversion."""
    source = source_in(value, into)
    return convert(value, into) if source is None else source


def source_in(value: ir.Value, kind: ir.Type) -> ir.Value | None:
    """The operand of the conversion that makes this value, if one does and the operand has this element type."""
    source = widened_from(value)
    return source if source is not None and element_type(source) == kind else None


def widened_from(value: ir.Value) -> ir.Value | None:
    """The operand of the conversion that makes this value, if one does."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.operation.name != "stablehlo.convert":
        return None
    return owner.operation.operands[0]


def read_roles(text: str) -> tuple[str, ...]:
    """Roles from text such as `parameter+optimizer`."""
    roles = tuple(text.split("+"))
    if set(roles) - set(ROLES):
        raise ValueError(f"give {'+'.join(ROLES)} or one of them")
    return roles


def read_half(text: str) -> str:
    """A 16-bit floating-point type from text."""
    if text not in ("bf16", "f16"):
        raise ValueError("give bf16 or f16")
    return text
