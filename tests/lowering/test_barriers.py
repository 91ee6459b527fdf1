"""A barrier is between a copy or a fill and what it shares bytes with, and nowhere else."""

from __future__ import annotations

import iree.compiler.ir as ir
import pytest

from sonew_compiled.lowering.barriers import add_barriers

IMPORTS = """
  vm.import private @hal.command_buffer.execution_barrier(%c : !vm.ref<!hal.command_buffer>,
    %s : i32, %t : i32, %f : i64)
  vm.import private @hal.command_buffer.fill_buffer(%c : !vm.ref<!hal.command_buffer>, %t : !vm.ref<!hal.buffer>,
    %at : i64, %length : i64, %slot : i32, %pattern : i64, %pattern_length : i32, %flags : i64)
  vm.import private @hal.command_buffer.copy_buffer(%c : !vm.ref<!hal.command_buffer>, %ss : i32, %ts : i32,
    %s : !vm.ref<!hal.buffer>, %from : i64, %t : !vm.ref<!hal.buffer>, %to : i64, %length : i64, %flags : i64)
  vm.import private @hal.command_buffer.dispatch(%c : !vm.ref<!hal.command_buffer>, %e : !vm.ref<!hal.executable>,
    %function : i64, %x : i32, %y : i32, %z : i32, %flags : i64, %constants : i32 ...,
    %bindings : tuple<i32, i32, !vm.ref<!hal.buffer>, i64, i64> ...)"""
COMMANDS, BUFFER = "!vm.ref<!hal.command_buffer>", "!vm.ref<!hal.buffer>"
BARRIER = f"vm.call @hal.command_buffer.execution_barrier(%c, %s0, %s0, %n0) : ({COMMANDS}, i32, i32, i64) -> ()"

Place = tuple[str, str]
"""A buffer, which is a slot or one that is known, and where in it the four bytes of a command begin."""


def _parts(place: Place) -> tuple[str, str, str]:
    buffer, at = place
    return ("%s0", f"%{buffer}", f"%n{at}") if buffer.startswith("x") else (f"%s{buffer}", "%null", f"%n{at}")


def _fill(target: Place) -> str:
    slot, buffer, at = _parts(target)
    types = f"({COMMANDS}, {BUFFER}, i64, i64, i32, i64, i32, i64) -> ()"
    return f"vm.call @hal.command_buffer.fill_buffer(%c, {buffer}, {at}, %n4, {slot}, %n0, %s1, %n0) : {types}"


def _copy(source: Place, target: Place) -> str:
    (slot, buffer, at), (to_slot, to_buffer, to) = _parts(source), _parts(target)
    call = (
        f"vm.call @hal.command_buffer.copy_buffer(%c, {slot}, {to_slot}, {buffer}, {at}, {to_buffer}, {to}, %n4, %n0)"
    )
    return f"{call} : ({COMMANDS}, i32, i32, {BUFFER}, i64, {BUFFER}, i64, i64, i64) -> ()"


def _dispatch(*places: Place) -> str:
    bindings = ", ".join(f"(%s0, {slot}, {buffer}, {at}, %n4)" for slot, buffer, at in map(_parts, places))
    binding = f"tuple<i32, i32, {BUFFER}, i64, i64>"
    call = f"vm.call.variadic @hal.command_buffer.dispatch(%c, %e, %n0, %s1, %s1, %s1, %n0, [%s1, %s1], [{bindings}])"
    return f"{call} : ({COMMANDS}, !vm.ref<!hal.executable>, i64, i32, i32, i32, i64, i32 ..., {binding} ...)"


def _barriers(*commands: str) -> list[int]:
    """The numbers of commands between the barriers, after they were added."""
    lines = "\n".join(commands)
    text = f"""vm.module @m {{ {IMPORTS}
      vm.func @f(%c: {COMMANDS}, %x: {BUFFER}, %x2: {BUFFER}, %ni: i64, %e: !vm.ref<!hal.executable>) {{
        %null = vm.const.ref.zero : {BUFFER}
        %s0 = vm.const.i32.zero
        %s1 = vm.const.i32 1
        %n0 = vm.const.i64.zero
        %n2 = vm.const.i64 2
        %n4 = vm.const.i64 4
        %n8 = vm.const.i64 8
        {lines}
        vm.return
      }}
    }}"""
    with ir.Context():
        module = ir.Module.parse(text)
        add_barriers(module.operation)
        assert module.operation.verify()
        added = str(module)
        add_barriers(module.operation)
        assert str(module) == added
        calls = [line for line in added.splitlines() if "vm.call" in line]
    groups = "".join("|" if "barrier" in line else "c" for line in calls).split("|")
    return [len(each) for each in groups]


A, B = "0", "1"
APART = {
    "a fill is read": ([_fill((A, "0")), _copy((B, "0"), (A, "4")), _copy((A, "0"), (B, "8"))], [2, 1]),
    "a part of a fill is read": ([_fill((A, "0")), _copy((A, "2"), (B, "0"))], [1, 1]),
    "a copy is overwritten": ([_copy((B, "0"), (A, "0")), _copy((B, "4"), (A, "0"))], [1, 1]),
    "what is read is overwritten": (
        [_copy((A, "0"), (B, "0")), _copy((B, "4"), (A, "4")), _fill((A, "0"))],
        [2, 1],
    ),
    "it is not known what is read": ([_fill((A, "0")), _copy((A, "i"), (B, "0"))], [1, 1]),
    "a buffer that is known": ([_fill(("x", "0")), _copy(("x", "0"), (B, "0"))], [1, 1]),
    "a dispatch writes what is read": ([_dispatch((B, "0"), (A, "0")), _copy((A, "0"), (B, "8"))], [1, 1]),
    "a dispatch overwrites what is read": ([_copy((A, "0"), (B, "0")), _dispatch(("x", "0"), (A, "2"))], [1, 1]),
    "a dispatch of a buffer that is known": ([_dispatch(("x", "0")), _fill(("x", "0"))], [1, 1]),
    "again and again": ([_fill((A, "0")), _copy((A, "0"), (B, "0"))] * 2, [1, 1, 1, 1]),
}
TOGETHER = {
    "both read": ([_copy((A, "0"), (B, "0")), _copy((A, "0"), (B, "4"))], [2]),
    "both write parts": ([_fill((A, "0")), _fill((A, "4")), _copy((B, "0"), (A, "8"))], [3]),
    "other slots": ([_fill((A, "0")), _copy((B, "i"), (B, "8"))], [2]),
    "other buffers": ([_fill(("x", "0")), _fill(("x2", "0")), _fill((A, "0"))], [3]),
    "dispatches, which IREE keeps apart": ([_dispatch((A, "0")), _dispatch((A, "0"), (B, "0"))], [2]),
    "a dispatch of other parts": ([_dispatch((A, "0")), _copy((A, "4"), (B, "0")), _dispatch((B, "4"))], [3]),
    "there is a barrier": ([_fill((A, "0")), BARRIER, _copy((A, "0"), (B, "0"))], [1, 1]),
}


@pytest.mark.parametrize("name", APART)
def test_the_last_command_waits(name: str) -> None:
    commands, groups = APART[name]
    assert _barriers(*commands) == groups


@pytest.mark.parametrize("name", TOGETHER)
def test_no_command_waits_without_need(name: str) -> None:
    commands, groups = TOGETHER[name]
    assert _barriers(*commands) == groups
