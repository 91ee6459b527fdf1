"""Cut kernels of single numbers that would have too many operands.

IREE 3.13 computes the numbers that follow each other in one kernel, whether or not they depend on each other, without a
bound on those that it reads and writes: the steps of seven optimizers, and what each derives from its step. Its runtime
takes 32 tensors for a kernel, and 16 on CUDA, ROCm and Metal; a module with more compiles, and fails where it is loaded
("binding count 33 > 32"). IREE begins a kernel behind a copy (`flow.tensor.clone`). So this pass forms the kernels as
IREE does, from the last operation of a function to the first, and puts a copy where one would become too large.
"""

from __future__ import annotations

import math

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.elementwise import FUSED, MOVES
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import Readers, at_top, owner
from sonew_compiled.passes.record import Option, Pass

# Constants are computed where they are read.
_CONSTANTS = ("stablehlo.constant", "stablehlo.iota")
# Operations that become no kernels.
_HOST = {f"stablehlo.{name}" for name in ("case", "custom_call", "if", "optimization_barrier", "while")}


def bound_numbers(module: ir.Module, *, operands: int) -> None:
    """Copy numbers so that no kernel of those that follow each other reads and writes more than so many tensors.

    Args:
      module: the module, changed in place.
      operands: the most tensors, less than IREE's limit, because IREE's operations are not exactly those of the module.
    """
    for function in module.body.operations:
        if function.operation.name == "func.func":
            for block in function.operation.regions[0].blocks:
                # An operation's hash changes with its operands, so copies are made last.
                for op in _Kernels(block, operands).too_large():
                    readers = [(value, Readers(value)) for value in op.results]
                    with ir.InsertionPoint.after(op):
                        for value, those in readers:
                            those.redirect(build.clone(value))


class _Kernels:
    """The kernels that IREE makes of the numbers of a block; an operation is known by its place in the block."""

    def __init__(self, block: ir.Block, most: int) -> None:
        self._most = most
        self._operations = [each.operation for each in block.operations]
        places = {op: place for place, op in enumerate(self._operations)}
        self._numbers = [place for place, op in enumerate(self._operations) if _is_number(op)]
        self._makers = {value: place for place in self._numbers for value in self._operations[place].results}
        self._readers = [set[int]() for _ in self._operations]
        for place, op in reversed([*enumerate(self._operations)]):
            for reader in (places[at_top(use.owner.operation)] for value in op.results for use in value.uses):
                self._readers[place] |= self._readers[reader] if _is_moved(self._operations[reader]) else {reader}
        self._others = self._other_readers()
        self._done: set[int] = set()  # what is in some kernel

    def too_large(self) -> list[ir.Operation]:
        """The operations behind which a kernel must begin, so that none has too many tensors."""
        found = []
        for count, root in reversed(list(enumerate(self._numbers, 1))):
            if root in self._done:
                continue
            kernel, tensors = set[int](), set[ir.Value]()
            for place in reversed(self._numbers[:count]):
                # A kernel ends before a number that is read in its midst by an operation that is no part of it.
                if self._others[place] < root:
                    break
                if place in self._done:
                    continue
                added = self._with_producers(place)
                tensors = self._tensors(kernel | added, tensors, added)
                if len(tensors) > self._most and kernel:
                    found.append(self._operations[place])
                    break
                kernel |= added
                self._done |= added
        return found

    def _other_readers(self) -> list[int]:
        """For each operation the first place at which something reads it that is no number; behind the end if none."""
        end = len(self._operations)
        first, computed, numbers = [end] * end, [*range(end)], set(self._numbers)
        for place in reversed(range(end)):
            op, readers = self._operations[place], self._readers[place]
            if op.name in FUSED or op.name in MOVES:
                # An elementwise operation is computed where it is read.
                computed[place] = min((computed[each] for each in readers), default=place)
            first[place] = min((computed[each] for each in readers - numbers), default=end)
            # What no kernel reads leaves the kernel that computes it at once. What nothing reads is dropped.
            if readers and not any(_is_computed(self._operations[each]) for each in readers):
                first[place] = place
        return first

    def _with_producers(self, place: int) -> set[int]:
        """The operation, and those that only kernels read."""
        added, waiting = {place}, [place]
        while waiting:
            for value in self._operations[waiting.pop()].operands:
                maker = self._makers.get(_unmoved(value))
                if maker is None or maker in added or maker in self._done:
                    continue
                if all(reader in added or reader in self._done for reader in self._readers[maker]):
                    added.add(maker)
                    waiting.append(maker)
        return added

    def _tensors(self, kernel: set[int], before: set[ir.Value], added: set[int]) -> set[ir.Value]:
        """What a kernel reads and writes, from what it did before some of its operations were added."""
        operations = [self._operations[place] for place in added]
        touched = {value for op in operations for value in (*map(_unmoved, op.operands), *op.results)}
        inner = {
            value
            for value in touched
            if (maker := self._makers.get(value)) in kernel and self._readers[maker] <= kernel
        }
        return {value for value in before | touched if value not in inner and not _is_constant(value)}


def _is_number(op: ir.Operation) -> bool:
    return _is_computed(op) and op.name not in _CONSTANTS and op.name not in MOVES and _is_single(op)


def _is_computed(op: ir.Operation) -> bool:
    return op.name.startswith("stablehlo.") and op.name not in _HOST


def _is_moved(op: ir.Operation) -> bool:
    return op.name in MOVES and _is_single(op)


def _is_single(op: ir.Operation) -> bool:
    values = (*op.operands, *op.results)
    return all(isinstance(value.type, ir.RankedTensorType) and math.prod(shape_of(value)) <= 1 for value in values)


def _unmoved(value: ir.Value) -> ir.Value:
    """The number that a value has in another shape: no kernel computes that."""
    while (maker := owner(value)) is not None and _is_moved(maker):
        value = maker.operands[0]
    return value


def _is_constant(value: ir.Value) -> bool:
    maker = owner(value)
    return maker is not None and maker.name in _CONSTANTS


PASS = Pass(
    name="bound-numbers",
    summary="cut kernels of single numbers that would have too many operands",
    description=__doc__,
    run=bound_numbers,
    options=(Option(name="operands", default=24, help="the most tensors that such a kernel needs", read=int),),
)
