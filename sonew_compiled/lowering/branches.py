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

import io
import re
from collections.abc import Iterator
from typing import Any

# The operations that become branches, in text and in a portable artifact.
_BRANCHING = re.compile(rb"stablehlo\.(case|if|while)\b|\b(case|if|while)_v\d+\0")
_BRANCH, _CONDITIONAL = "vm.br", "vm.cond_br"
_REFERENCE = "!vm.ref<"


def has_branches(stablehlo: bytes) -> bool:
    """Whether the host code of a module has branches that pass tensors; the module is an artifact or text."""
    return _BRANCHING.search(stablehlo) is not None


def part_references(host_code: bytes) -> bytes:
    """The host code, bytecode of IREE's MLIR, after which no branch passes a reference twice."""
    import iree.compiler.ir as ir

    with ir.Context():
        module = ir.Module.parse(host_code)
        branches: list[Any] = []

        def visit(op: Any) -> Any:
            if op.name in (_BRANCH, _CONDITIONAL):
                branches.append(op)
            return ir.WalkResult.ADVANCE

        module.operation.walk(visit)
        for branch in branches:
            for index in _repeated(branch):
                branch.operands[index] = _parted(branch, branch.operands[index])
        parted = io.BytesIO()
        module.operation.write_bytecode(parted)
    return parted.getvalue()


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
        i32 = ir.IntegerType.get_signless(32)
        true = ir.Operation.create("vm.const.i32", results=[i32], attributes={"value": ir.IntegerAttr.get(i32, 1)})
        operands = [true.result, value, value]
        return ir.Operation.create("vm.select.ref", results=[value.type], operands=operands).result


def _sizes(branch: Any) -> list[int]:
    """The number of operands that are the condition, and the numbers that each block gets."""
    import iree.compiler.ir as ir

    return list(ir.DenseI32ArrayAttr(branch.attributes["operandSegmentSizes"]))
