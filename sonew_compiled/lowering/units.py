"""The units for products of 16-bit numbers that an executable uses, counted in its machine code."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from sonew_compiled.lowering.vmfb import Code, elf_segments, read_code, spirv_instructions

# An instruction has the prefix EVEX, the map 0F38, its own prefix (F3 or F2), the width W0 and an opcode; the other
# bits are registers. So twenty-five bits are fixed, which other code matches by chance once in thirty million places.
_EVEX = re.compile(rb"\x62(?=...[\x52\x72])", re.DOTALL)
_X86_64 = {(0x06, 0x52): "vdpbf16ps", (0x06, 0x72): "vcvtneps2bf16", (0x07, 0x72): "vcvtne2ps2bf16"}

# For each instruction of 32 bits, the mask of the bits that are no registers, and their value.
_AARCH64 = {
    "bfmmla": (0xFFE0FC00, 0x6E40EC00),
    "bfdot": (0xBFE0FC00, 0x2E40FC00),
    "bfcvt": (0xFFFFFC00, 0x1E634000),
    "bfcvtn": (0xBFFFFC00, 0x0EA16800),
}

# The same for the first 32 bits of AMD's instructions on 16-bit numbers.
_AMD_OPERATIONS = {
    "v_mfma": (0xFF800000, 0xD3800000, {*range(0x48, 0x4E), 0x5F, *range(0x60, 0x68)}),
    "v_wmma": (0xFF800000, 0xCC000000, {*range(0x40, 0x44)}),
}

_PTX = re.compile(rb"^\s*(?:@\S+\s+)?(wgmma\.mma_async|wmma\.mma\.sync|mma\.sync)[\w.:]*\.b?f16\b", re.MULTILINE)
_MSL = re.compile(rb"\b(simdgroup_multiply_accumulate)\b")
_SPIRV = {4459: "OpCooperativeMatrixMulAddKHR"}

_PF_X = 1


def count_units(executable: bytes) -> Mapping[str, int]:
    """The count of each instruction in the code that multiplies or rounds 16-bit numbers in units for them.

    Args:
      executable: a `.vmfb`.

    Returns:
      The counts by the instruction's name in the manual of the processor or language, without those that are zero.

    Raises:
      ValueError: it is not an IREE executable.
    """
    found: Counter[str] = Counter()
    try:
        for code in read_code(executable):
            found.update(_FINDERS.get((code.kind, code.architecture if code.kind == "elf" else ""), _nothing)(code))
    except (IndexError, struct.error) as error:
        raise ValueError(f"not an IREE executable: {error}") from None
    return dict(sorted(found.items()))


def is_product(instruction: str) -> bool:
    """Whether an instruction of `count_units` multiplies; the others round."""
    return "cvt" not in instruction


def _nothing(_: Code) -> Iterator[str]:
    return iter(())


def _of_x86_64(code: Code) -> Iterator[str]:
    for segment in _code_segments(code.content):
        for at in (found.start() for found in _EVEX.finditer(segment)):
            _, first, second, _, opcode = segment[at : at + 5]
            if first & 0x0F == 0x02 and (name := _X86_64.get((second & 0x87, opcode))) is not None:
                yield name


def _of_aarch64(code: Code) -> Iterator[str]:
    for word in _words(code):
        for name, (mask, value) in _AARCH64.items():
            if word & mask == value:
                yield name


def _of_amd(code: Code) -> Iterator[str]:
    for word in _words(code):
        for name, (mask, value, operations) in _AMD_OPERATIONS.items():
            if word & mask == value and word >> 16 & 0x7F in operations:
                yield name


def _of_text(pattern: re.Pattern[bytes]) -> Callable[[Code], Iterator[str]]:
    return lambda code: (found[1].decode() for found in pattern.finditer(code.content))


def _of_spirv(code: Code) -> Iterator[str]:
    return (_SPIRV[opcode] for _, opcode, _ in spirv_instructions(code.content) if opcode in _SPIRV)


def _words(code: Code) -> Iterator[int]:
    for segment in _code_segments(code.content):
        yield from (word for (word,) in struct.iter_unpack("<I", segment[: len(segment) // 4 * 4]))


def _code_segments(elf: bytes) -> Iterator[bytes]:
    """The segments of a 64-bit ELF file that are loaded as code."""
    return (elf[each.start : each.end] for each in elf_segments(elf) if each.flags & _PF_X)


_FINDERS: Mapping[tuple[str, str], Callable[[Code], Iterator[str]]] = {
    ("elf", "x86_64"): _of_x86_64,
    ("elf", "aarch64"): _of_aarch64,
    ("hsaco", ""): _of_amd,
    ("ptx", ""): _of_text(_PTX),
    ("msl", ""): _of_text(_MSL),
    ("spirv", ""): _of_spirv,
}
