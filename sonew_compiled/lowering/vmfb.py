"""The code for each device inside an IREE executable, read back from the bytes of a `.vmfb`."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sonew_compiled.lowering._msgpack import unpack
from sonew_compiled.lowering.targets import resolve_target, target_names

_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 224: "amdgpu", 243: "riscv64"}

_SPIRV_MAGIC = 0x07230203
_SPIRV_HEADER = 5
_SPIRV_ENTRY_POINT = 15
_PT_NOTE = 4
_NT_AMDGPU_METADATA = 32


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code for one kind of device, or of one dispatch if the format has a file for each.

    Attributes:
      kind: `elf` (a processor's), `bytecode` (IREE's own), `ptx`, `hsaco` (AMD's ELF), `spirv` or `msl`.
      architecture: the device that it needs: `x86_64`, `aarch64`, `riscv64`, `sm_80`, `gfx942`; empty if any will do.
      kernels: the names of its entry points; empty if the format does not give them.
      content: the code itself, without IREE's wrapping.
    """

    kind: str
    architecture: str
    kernels: tuple[str, ...]
    content: bytes


def read_code(vmfb: bytes) -> tuple[Code, ...]:
    """The codes in an IREE executable, in the order of its files.

    Raises:
      ValueError: it is not an IREE executable.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(vmfb)) as archive:  # a `.vmfb` is also a zip file
            members = [archive.read(name) for name in archive.namelist() if name.endswith((".so", ".fb"))]
    except zipfile.BadZipFile as error:
        raise ValueError(f"not an IREE executable: {error}") from None
    return tuple(code for member in members if (code := _code(member)) is not None)


def _code(member: bytes) -> Code | None:
    """The code in a file of the executable; None for the code that runs on the host."""
    kind = member[:4]
    if kind == b"\x7fELF":
        return Code(kind="elf", architecture=elf_machine(member), kernels=(), content=member)
    if kind == b"PK\x03\x04":
        return Code(kind="bytecode", architecture="", kernels=(), content=member)
    if kind == b"CDA1":
        text = _string(member, b".version ")
        target = re.search(r"^\.target (\w+)", text, re.MULTILINE)
        entries = tuple(re.findall(r"^\.visible \.entry (\w+)\(", text, re.MULTILINE))
        return Code(kind="ptx", architecture=target[1] if target else "", kernels=entries, content=text.encode())
    if kind == b"HIP1":
        # The ELF is a string of a flat buffer; its length comes before it.
        start = member.index(b"\x7fELF")
        elf = member[start : start + struct.unpack_from("<I", member, start - 4)[0]]
        names = tuple(kernel[".name"] for kernel in amd_metadata(elf).get("amdhsa.kernels", []))
        return Code(kind="hsaco", architecture=_amd_model(elf), kernels=names, content=elf)
    if kind == b"VKE1":
        start = member.index(struct.pack("<I", _SPIRV_MAGIC))
        words = struct.unpack_from("<I", member, start - 4)[0]
        content = member[start : start + 4 * words]
        return Code(kind="spirv", architecture="", kernels=_spirv_entries(content), content=content)
    if kind == b"MTL1":
        text = _string(member, b"#include <metal_stdlib>")
        entries = tuple(re.findall(r"\bkernel void (\w+)\(", text))
        return Code(kind="msl", architecture="", kernels=entries, content=text.encode())
    return None


def elf_machine(elf: bytes) -> str:
    """The instruction set of an ELF file, as `platform.machine()` names it; its number if it is not known."""
    number = struct.unpack_from("<H", elf, 18)[0]
    return _ELF_MACHINES.get(number, str(number))


def _amd_model(elf: bytes) -> str:
    """The model that a `hsaco` is for, such as `gfx942`; its number if no target is for it."""
    number = struct.unpack_from("<I", elf, 48)[0] & 0xFF  # EF_AMDGPU_MACH of the header's e_flags
    targets = map(resolve_target, target_names())
    return next((each.model for each in targets if each.code_model == number), hex(number))


def _string(member: bytes, start: bytes) -> str:
    """The text from `start` to its terminating zero."""
    at = member.index(start)
    return member[at : member.index(b"\0", at)].decode()


def _spirv_entries(content: bytes) -> tuple[str, ...]:
    return tuple(
        content[4 * (at + 3) : 4 * (at + length)].partition(b"\0")[0].decode()
        for at, opcode, length in spirv_instructions(content)
        if opcode == _SPIRV_ENTRY_POINT
    )


def spirv_instructions(content: bytes) -> Iterator[tuple[int, int, int]]:
    """The start, opcode and length of each instruction of a SPIR-V module; start and length in 32-bit words."""
    words = struct.unpack(f"<{len(content) // 4}I", content)
    at = _SPIRV_HEADER
    while at < len(words):
        length = words[at] >> 16
        yield at, words[at] & 0xFFFF, length
        at += max(length, 1)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment of an ELF file.

    Attributes:
      kind: `p_type` of its header.
      flags: `p_flags`.
      start: its first byte in the file.
      end: the byte after its last.
    """

    kind: int
    flags: int
    start: int
    end: int


def elf_segments(elf: bytes) -> Iterator[Segment]:
    """The segments of an ELF file of 64 bits."""
    table = struct.unpack_from("<Q", elf, 32)[0]
    size, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, table + index * size)
        yield Segment(kind=kind, flags=flags, start=offset, end=offset + length)


def amd_metadata(elf: bytes) -> dict[str, Any]:
    """The contents of the note `NT_AMDGPU_METADATA` of a `hsaco`; empty if it has no such note."""
    for segment in elf_segments(elf):
        if segment.kind != _PT_NOTE:
            continue
        offset = segment.start
        while offset + 12 <= segment.end:
            name_size, value_size, note = struct.unpack_from("<III", elf, offset)
            value = offset + 12 + -(-name_size // 4) * 4
            if note == _NT_AMDGPU_METADATA:
                metadata: dict[str, Any] = unpack(elf[value : value + value_size])
                return metadata
            offset = value + -(-value_size // 4) * 4
    return {}
