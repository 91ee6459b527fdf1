"""Cut an update into parts by the tensors of the state, which workers divide among themselves.

Tensors that are computed from each other, such as a weight and its moments, make a part. Small tensors that depend on
no part, such as the count of steps, are common to all:

    update(bucket, state, rate)  gets beside it  update_common(bucket, common, rate) -> common, loss, numbers
                                                 update_0(numbers, bucket, common, its state, rate) -> its state
                                                 update_1 ...

The numbers are small values that the whole bucket makes and several parts read, such as the norm of all gradients. The
parts do not depend on the number of workers. Small parts are joined to others, and so are the smallest if there are
more than `parts`. If all tensors are computed from each other, there is one part, and nothing is added.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sonew_compiled import contract
from sonew_compiled.contract import STATE_ROLES, Role
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import Attributes, role_indices, text_attribute
from sonew_compiled.passes.ir.branches import divide_branches
from sonew_compiled.passes.ir.calls import inline_into
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.exports import begin_export, finish_export, label, without_donation
from sonew_compiled.passes.ir.function import Function, functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.slices import copy_operations, slice_to
from sonew_compiled.passes.ir.types import element_type, has_element, shape_of, width_of, with_element
from sonew_compiled.passes.record import Option, Pass

# A part smaller than the state divided by this is joined to another, since each part is a call.
_LEAST = 64
# The most elements of a tensor that every worker keeps, and of a number that is handed from part to part.
_SMALL = 16


def split_update(module: ir.Module, *, parts: int) -> None:
    """Add `update_common`, `update_0`, `update_1` and so on, made from `update`, which stays.

    Raises:
        UsageError: there is no `update`, or the option is out of range.
    """
    if parts < 2:
        raise UsageError(f"split-update: parts is {parts}; give the most parts, 2 or more")
    by_name = {function.name: function for function in functions(module)}
    if contract.UPDATE not in by_name:
        raise UsageError("split-update needs a function update; run split-step before")
    with ir.InsertionPoint.at_block_begin(module.body):
        flat = Function(by_name[contract.UPDATE].op.clone())
    inline_into(flat, by_name)
    divide_branches(flat)
    update = _Update(flat)
    found = update.parts(parts)
    if len(found) > 1:
        numbers = update.shared_numbers(found)
        with ir.InsertionPoint(by_name[contract.UPDATE].op):
            update.write(contract.UPDATE_COMMON, update.common, numbers, is_common=True)
            for index, members in enumerate(found):
                update.write(contract.update_part(index), members, numbers, is_common=False)
    flat.op.erase()


@dataclass
class _Tensor:
    """A tensor of the state.

    Attributes:
        name: its name.
        old: the argument.
        new: the value after the step.
        reads: the tensors of the state from which it is computed, by name.
    """

    name: str
    old: ir.Value
    new: ir.Value
    reads: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return math.prod(shape_of(self.old))

    @property
    def bits(self) -> int:
        return self.size * width_of(element_type(self.old))


class _Update:
    """The update without calls, and for each tensor of the state those that it is computed from."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.arguments = dict(zip(map(_name, function.argument_attributes), function.arguments, strict=True))
        self.results = dict(zip(map(_name, function.result_attributes), function.returned, strict=True))
        of_state = [_name(function.argument_attributes[index]) for index in self._indices(STATE_ROLES)]
        self.state = {name: _Tensor(name, self.arguments[name], self.results[name]) for name in of_state}
        by_value = {tensor.old: tensor.name for tensor in self.state.values()}
        for tensor in self.state.values():
            leaves = slice_to([tensor.new], stop=()).leaves
            tensor.reads = {by_value[leaf] for leaf in leaves if leaf in by_value}
        self.common = self._common()
        self.bucket = self.arguments[contract.BUCKET]

    def _indices(self, roles: Collection[Role]) -> list[int]:
        return role_indices(self.function.argument_attributes, roles)

    def _common(self) -> list[str]:
        """The small tensors that are computed from each other alone."""
        found = {tensor.name for tensor in self.state.values() if tensor.size <= _SMALL}
        while left := {name for name in found if not self.state[name].reads <= found}:
            found -= left
        return [name for name in self.state if name in found]

    def parts(self, most: int) -> list[list[str]]:
        """The names of the tensors of each part, in the order of the state."""
        part_of = {name: {name} for name in self.state if name not in self.common}
        for name in part_of:
            for other in self.state[name].reads & part_of.keys():
                joined = part_of[name] | part_of[other]
                part_of |= dict.fromkeys(joined, joined)
        distinct = {min(part): part for part in part_of.values()}
        whole = self._bits(part_of)
        large = sum(_LEAST * self._bits(part) >= whole for part in distinct.values())
        bins: list[set[str]] = [set() for _ in range(min(most, len(distinct), max(large, 2)))]
        for _, part in sorted(distinct.items(), key=lambda item: (-self._bits(item[1]), item[0])):
            min(bins, key=self._bits).update(part)
        order = [[name for name in self.state if name in part] for part in bins]
        return sorted(order, key=lambda names: list(self.state).index(names[0]))

    def _bits(self, names: Collection[str]) -> int:
        return sum(self.state[name].bits for name in names)

    def shared_numbers(self, parts: Sequence[Sequence[str]]) -> dict[ir.Value, str]:
        """The small values that the bucket makes and that several parts read, with the names that they get."""
        slices = [slice_to([self.state[name].new for name in part], stop=()).operations for part in parts]
        several = [op for op in self._operations() if sum(op in each for each in slices) > 1]
        numbers = {value for op in several for value in op.results if self._is_number(value)}
        # Only the last of these, where the parts begin.
        read = {
            leaf for part in parts for leaf in slice_to([self.state[name].new for name in part], stop=numbers).leaves
        }
        ordered = [value for op in several for value in op.results if value in numbers and value in read]
        return {value: f"{Role.GRADIENT.root}/number_{index}" for index, value in enumerate(ordered)}

    def _is_number(self, value: ir.Value) -> bool:
        if math.prod(shape_of(value)) > _SMALL:
            return False
        leaves = slice_to([value], stop=()).leaves
        parted = [tensor.old for name, tensor in self.state.items() if name not in self.common]
        return self.bucket in leaves and not any(value in leaves for value in parted)

    def _operations(self) -> list[ir.Operation]:
        return [op.operation for op in self.function.block.operations]

    def write(self, name: str, members: Sequence[str], numbers: Mapping[ir.Value, str], *, is_common: bool) -> None:
        """Write the part of these tensors; the common part gives the numbers and the loss, and others take them."""
        given = dict(zip(self.function.arguments, self.function.argument_attributes, strict=True))
        labels = dict(zip(self.results, self.function.result_attributes, strict=True))
        wanted = [*members, contract.LOSS] if is_common else members
        values = [self.results[each] for each in wanted]
        needed = slice_to([*values, *numbers] if is_common else values, stop=() if is_common else numbers)
        # The other parts still read what is common.
        own = [] if is_common else [self.state[member].old for member in members]
        taken = [value for value in self.function.arguments if value in needed.leaves or value in own]
        carried = [value for value in numbers if value in needed.leaves]
        attributes = [
            *(label(numbers[value], Role.GRADIENT) for value in carried),
            *(given[value] if value in own else without_donation(given[value]) for value in taken),
        ]
        export, block = begin_export(name, [*map(_type_between, carried), *(value.type for value in taken)])
        with ir.InsertionPoint(block):
            entered, rest = list(block.arguments)[: len(carried)], list(block.arguments)[len(carried) :]
            known = {value: _arrived(value, new) for value, new in zip(carried, entered, strict=True)}
            known |= zip(taken, rest, strict=True)
            copy_operations(self.function.block, needed.operations, known)
            returned = [known[value] for value in values]
            if is_common:
                returned += [_sent(known[value]) for value in numbers]
            build.create("func.return", returned)
        results = [labels[each] for each in wanted]
        if is_common:
            results += [label(number, Role.GRADIENT) for number in numbers.values()]
        finish_export(export, attributes, results)


# Booleans are handed on as integers: not every target can store them.
def _type_between(value: ir.Value) -> ir.Type:
    return with_element(value, _integer()) if _is_boolean(value) else value.type


def _sent(value: ir.Value) -> ir.Value:
    return convert(value, _integer()) if _is_boolean(value) else value


def _arrived(value: ir.Value, new: ir.Value) -> ir.Value:
    return build.compare("NE", new, build.like(0, new), "SIGNED") if _is_boolean(value) else new


def _is_boolean(value: ir.Value) -> bool:
    return has_element(value, ir.IntegerType.get_signless(1))


def _integer() -> ir.Type:
    return ir.IntegerType.get_signless(32)


def _name(attributes: Attributes) -> str:
    return text_attribute(attributes, contract.NAME_ATTRIBUTE)


PASS = Pass(
    name="split-update",
    summary="cut an update into parts by the tensors of the state",
    description=__doc__,
    run=split_update,
    options=(Option(name="parts", default=16, help="the most parts", read=int),),
)
