"""Branches of IREE's host code that pass one reference several times, which IREE 3.13 loses.

The code that runs on the host is in IREE's `vm` dialect. A branch to a block passes buffers and fences in registers of
references. The last use of a reference among the branch's arguments moves it out of its register. But IREE reorders the
moves, and leaves out a move whose register is already the right one. A register that is still to be read is then empty.
A command buffer takes an empty register for a slot of its binding table ("indirect buffer reference slot 0 is out
range"), a call fails with "ref is null", and nothing waits for a fence that is missing.

Here each argument after the first gets a reference of its own in another register, by a select between the reference
and itself:

    vm.br ^bb1(%0, %0)        becomes        %1 = vm.select.ref %c1, %0, %0
                                             vm.br ^bb1(%0, %1)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sonew_compiled.lowering.vm import constant, operations_in

_BRANCH, _CONDITIONAL = "vm.br", "vm.cond_br"
_REFERENCE = "!vm.ref<"


def part_references(module: Any) -> None:
    """Changes IREE's host code, so that no branch passes a reference twice to the same block."""
    for branch in [op for op in operations_in(module) if op.name in (_BRANCH, _CONDITIONAL)]:
        for index in _repeated(branch):
            branch.operands[index] = _parted(branch, branch.operands[index])


def _repeated(branch: Any) -> Iterator[int]:
    """The indices of operands whose reference an earlier operand passes to the same block."""
    counts = [len(branch.operands)] if branch.name == _BRANCH else _sizes(branch)[1:]
    at = len(branch.operands) - sum(counts)
    for count in counts:
        seen = set()
        for index in range(at, at + count):
            value = branch.operands[index]
            if str(value.type).startswith(_REFERENCE):
                if value in seen:
                    yield index
                seen.add(value)
        at += count


def _parted(branch: Any, value: Any) -> Any:
    """The same reference as another value."""
    import iree.compiler.ir as ir

    with branch.location, ir.InsertionPoint(branch):
        operands = [constant(1), value, value]
        return ir.Operation.create("vm.select.ref", results=[value.type], operands=operands).result


def _sizes(branch: Any) -> list[int]:
    """The number of operands that are the condition, and the numbers that each block gets."""
    import iree.compiler.ir as ir

    return list(ir.DenseI32ArrayAttr(branch.attributes["operandSegmentSizes"]))
