"""Copies and fills that IREE 3.13 lets run beside commands whose bytes they read or overwrite.

IREE's host code records commands, which may run side by side if no barrier is between them:

    dispatch       writes the first half of r
    dispatch       writes the second half
    copy_buffer    reads the first half
    execution_barrier

IREE leaves out the barrier between a command and one that it depends on directly if their bytes are next to each other.
The copy here depends on the first dispatch through the second, whose bytes are others. So it reads what the first has
written or not, as it happens. A concatenation with a slice of it becomes such commands.

Here a barrier is put before a copy or a fill that has bytes in common with an earlier command, if either writes them,
and before a dispatch that has bytes in common with an earlier copy or fill. What a dispatch reads and writes is not
known: it may be all of the buffers that it is given. Between two dispatches IREE's own barriers are right: of a tensor
that several have written a part of, a dispatch reads all. The pass `own-operands` sees to it that a part is not written
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sonew_compiled.lowering.vm import constant, operations_in

_IMPORTS = "hal.command_buffer."
_FILL, _COPY, _DISPATCH, _BARRIER = (
    _IMPORTS + name for name in ("fill_buffer", "copy_buffer", "dispatch", "execution_barrier")
)
# A binding of a dispatch: a reserved number, the slot, the buffer, the offset and the length.
_BINDING = 5
# The stages that are waited for, and those that wait, as IREE has them in its own barriers.
_ISSUE, _DISPATCHES, _TRANSFERS, _RETIRE = 1 << 0, 1 << 2, 1 << 3, 1 << 4
_BEFORE, _AFTER = _DISPATCHES | _TRANSFERS | _RETIRE, _ISSUE | _DISPATCHES | _TRANSFERS


@dataclass(frozen=True)
class _Access:
    """Bytes of a buffer that a command reads or writes; an offset or a length that is not constant is None."""

    buffer: Any
    offset: int | None
    length: int | None
    writes: bool
    of_dispatch: bool = False

    def conflicts(self, other: _Access) -> bool:
        if self.buffer != other.buffer or not (self.writes or other.writes) or (self.of_dispatch and other.of_dispatch):
            return False
        if self.offset is None or self.length is None or other.offset is None or other.length is None:
            return True
        return self.offset < other.offset + other.length and other.offset < self.offset + self.length


def add_barriers(module: Any) -> None:
    """Puts barriers into IREE's host code, so that copies and fills wait, and are waited for, as they must."""
    blocks: dict[Any, list[Any]] = {}
    for op in operations_in(module):
        if _callee(op) in (_FILL, _COPY, _DISPATCH, _BARRIER):
            blocks.setdefault(op.block, []).append(op)
    for calls in blocks.values():
        seen: list[_Access] = []
        for call in calls:
            accesses = list(_accesses(call))
            is_barrier = _callee(call) == _BARRIER
            if is_barrier or any(one.conflicts(other) for one in accesses for other in seen):
                seen.clear()
                if not is_barrier:
                    _add_barrier(call)
            seen += accesses


def _callee(op: Any) -> str:
    return str(op.attributes["callee"].value) if op.name in ("vm.call", "vm.call.variadic") else ""


def _accesses(call: Any) -> Iterator[_Access]:
    """What a command reads and writes; for its operands see the imports of IREE's `hal` module."""
    callee, (commands, *operands) = _callee(call), call.operands
    if callee == _FILL:
        target, offset, length, slot, *_ = operands
        yield _Access(_place(commands, slot, target), _constant(offset), _constant(length), writes=True)
    if callee == _COPY:
        source_slot, target_slot, source, source_offset, target, target_offset, length, _ = operands
        size = _constant(length)
        yield _Access(_place(commands, source_slot, source), _constant(source_offset), size, writes=False)
        yield _Access(_place(commands, target_slot, target), _constant(target_offset), size, writes=True)
    if callee == _DISPATCH:
        count = list(call.attributes["segment_sizes"])[-1]
        for at in range(len(operands) - _BINDING * count, len(operands), _BINDING):
            _, slot, buffer, offset, length = operands[at : at + _BINDING]
            place = _place(commands, slot, buffer)
            yield _Access(place, _constant(offset), _constant(length), writes=True, of_dispatch=True)


def _place(commands: Any, slot: Any, buffer: Any) -> tuple[Any, ...]:
    """Stands for a buffer or, where there is none yet, for the slot that it will have."""
    import iree.compiler.ir as ir

    is_later = not isinstance(buffer.owner, ir.Block) and buffer.owner.name == "vm.const.ref.zero"
    return (commands, _constant(slot)) if is_later else (commands, buffer)


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

    with call.location, ir.InsertionPoint(call):
        stages = [constant(mask) for mask in (_BEFORE, _AFTER)]
        flags = ir.Operation.create("vm.const.i64.zero", results=[ir.IntegerType.get_signless(64)]).result
        ir.Operation.create(
            "vm.call",
            operands=[call.operands[0], *stages, flags],
            attributes={"callee": ir.FlatSymbolRefAttr.get(_BARRIER)},
        )
