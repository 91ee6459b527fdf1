"""Branches of IREE's host code that pass one reference several times, which IREE 3.13 loses.

The code that runs on the host is in IREE's `vm` dialect. A branch to a block hands buffers and fences on in
registers of references, and takes each out of its register with the last argument that it passes it for. But the moves
are put into another order, and one whose register is already the right one is left out: then a register that is still
to be read is empty. A command buffer takes an empty register for a slot of its binding table ("indirect buffer
reference slot 0 is out range"), a call says "ref is null", and for a fence that is not there nobody waits.

Here each argument after the first gets a reference of its own, by a choice between the reference and itself, in a
register of its own:

    vm.br ^bb1(%0, %0)        becomes        %1 = vm.select.ref %c1, %0, %0
                                             vm.br ^bb1(%0, %1)
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

# The operations that become branches: as text has them, and as the portable artifact does.
_BRANCHING = re.compile(rb"stablehlo\.(case|if|while)\b|\b(case|if|while)_v\d+\0")
_BRANCH, _CONDITIONAL = "vm.br", "vm.cond_br"
_REFERENCE = "!vm.ref<"


def has_branches(stablehlo: bytes) -> bool:
    """Whether the host code of a module, a portable artifact or text, has branches that pass tensors."""
    return _BRANCHING.search(stablehlo) is not None


def part_references(host_code: bytes) -> bytes:
    """The host code, as bytecode of IREE's MLIR, with no reference passed twice by one branch."""
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
    """The operands that pass a reference which one before passes to the same block."""
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
    """How many operands are the condition, and how many each block gets."""
    import iree.compiler.ir as ir

    return list(ir.DenseI32ArrayAttr(branch.attributes["operandSegmentSizes"]))
