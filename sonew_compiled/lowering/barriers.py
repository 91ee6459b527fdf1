"""Copies and fills that IREE 3.13 lets run beside those whose bytes they read or overwrite.

IREE's host code records commands, which may run side by side if no barrier is between them:

    hal.command_buffer.fill_buffer     writes the first half of r
    hal.command_buffer.copy_buffer     writes the second half
    hal.command_buffer.copy_buffer     reads the first half
    hal.command_buffer.execution_barrier

IREE leaves out a barrier between a command and one that it depends on directly if their bytes differ. The last command
here depends on the first through the second, whose bytes are others. So it reads what the fill has written or not, as
it happens. A slice of a concatenation can become such commands. Dispatches do not: IREE takes them to read and write
the whole of a buffer, so that each waits for what it depends on.

Here a barrier is put before each copy or fill that has bytes in common with an earlier one, if either writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_FILL, _COPY = "hal.command_buffer.fill_buffer", "hal.command_buffer.copy_buffer"
_BARRIER = "hal.command_buffer.execution_barrier"
# The stages that are waited for, and those that wait, as IREE has them in its own barriers.
_DISPATCH, _TRANSFER = 1 << 2, 1 << 3
_BEFORE, _AFTER = _DISPATCH | _TRANSFER | 1 << 4, _DISPATCH | _TRANSFER | 1 << 0


@dataclass(frozen=True)
class _Access:
    """Bytes of a buffer that a command reads or writes; an offset or a length that is not constant is None."""

    buffer: Any
    offset: int | None
    length: int | None
    writes: bool

    def conflicts(self, other: _Access) -> bool:
        if self.buffer != other.buffer or not (self.writes or other.writes):
            return False
        if self.offset is None or self.length is None or other.offset is None or other.length is None:
            return True
        return self.offset < other.offset + other.length and other.offset < self.offset + self.length


def add_barriers(module: Any) -> None:
    """Puts barriers into IREE's host code, so that each copy and fill waits for those that it depends on."""
    import iree.compiler.ir as ir

    blocks: dict[Any, list[Any]] = {}

    def visit(op: Any) -> Any:
        if _callee(op) in (_FILL, _COPY, _BARRIER):
            blocks.setdefault(op.block, []).append(op)
        return ir.WalkResult.ADVANCE

    module.walk(visit)
    for calls in blocks.values():
        seen: list[_Access] = []
        for call in calls:
            accesses = list(_accesses(call))
            if any(one.conflicts(other) for one in accesses for other in seen):
                _add_barrier(call)
                seen = []
            seen = [] if _callee(call) == _BARRIER else [*seen, *accesses]


def _callee(op: Any) -> str:
    return str(op.attributes["callee"].value) if op.name == "vm.call" else ""


def _accesses(call: Any) -> Iterator[_Access]:
    """What a copy or a fill reads and writes; for their operands see the imports of IREE's `hal` module."""
    if _callee(call) == _FILL:
        commands, target, offset, length, slot, *_ = call.operands
        yield _access(commands, slot, target, offset, length, writes=True)
    if _callee(call) == _COPY:
        commands, source_slot, target_slot, source, source_offset, target, target_offset, length, _ = call.operands
        yield _access(commands, source_slot, source, source_offset, length, writes=False)
        yield _access(commands, target_slot, target, target_offset, length, writes=True)


def _access(commands: Any, slot: Any, buffer: Any, offset: Any, length: Any, *, writes: bool) -> _Access:
    """The access to a buffer, or where there is none yet to the slot for it."""
    place = ("slot", _constant(slot)) if _is_null(buffer) else ("buffer", buffer)
    return _Access((commands, *place), _constant(offset), _constant(length), writes)


def _is_null(buffer: Any) -> bool:
    import iree.compiler.ir as ir

    return not isinstance(buffer.owner, ir.Block) and buffer.owner.name == "vm.const.ref.zero"


def _constant(value: Any) -> int | None:
    import iree.compiler.ir as ir

    owner = value.owner
    if isinstance(owner, ir.Block):
        return None
    if owner.name in ("vm.const.i32.zero", "vm.const.i64.zero"):
        return 0
    return int(ir.IntegerAttr(owner.attributes["value"])) if owner.name in ("vm.const.i32", "vm.const.i64") else None


def _add_barrier(call: Any) -> None:
    import iree.compiler.ir as ir

    i32, i64 = ir.IntegerType.get_signless(32), ir.IntegerType.get_signless(64)
    with call.location, ir.InsertionPoint(call):
        values = [{"value": ir.IntegerAttr.get(i32, mask)} for mask in (_BEFORE, _AFTER)]
        stages = [ir.Operation.create("vm.const.i32", results=[i32], attributes=each).result for each in values]
        flags = ir.Operation.create("vm.const.i64.zero", results=[i64]).result
        ir.Operation.create(
            "vm.call",
            operands=[call.operands[0], *stages, flags],
            attributes={"callee": ir.FlatSymbolRefAttr.get(_BARRIER)},
        )
