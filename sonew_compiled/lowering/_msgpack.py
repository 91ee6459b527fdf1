"""MessagePack, as far as AMD's code objects use it."""

from __future__ import annotations

import struct
from typing import Any

_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZED = {
    0xC4: (">B", bytes),
    0xC5: (">H", bytes),
    0xC6: (">I", bytes),
    0xD9: (">B", str),
    0xDA: (">H", str),
    0xDB: (">I", str),
    0xDC: (">H", list),
    0xDD: (">I", list),
    0xDE: (">H", dict),
    0xDF: (">I", dict),
}


def unpack(data: bytes) -> Any:
    """The value that `data` starts with.

    Raises:
      ValueError: the data has a type that this function does not read, or ends too early.
    """
    try:
        return _value(data, 0)[0]
    except (struct.error, IndexError):
        raise ValueError("the MessagePack data ends too early") from None


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """The value at an offset, and the offset of its end."""
    head = data[at]
    at += 1
    if head < 0x80:
        return head, at
    if head >= 0xE0:
        return head - 0x100, at
    if head < 0xC0:
        kind: type
        kind, size = (dict, head & 0x0F) if head < 0x90 else (list, head & 0x0F) if head < 0xA0 else (str, head & 0x1F)
        return _sized(kind, size, data, at)
    if head in _CONSTANTS:
        return _CONSTANTS[head], at
    if head in _NUMBERS:
        return struct.unpack_from(_NUMBERS[head], data, at)[0], at + struct.calcsize(_NUMBERS[head])
    if head in _SIZED:
        form, kind = _SIZED[head]
        return _sized(kind, struct.unpack_from(form, data, at)[0], data, at + struct.calcsize(form))
    raise ValueError(f"MessagePack type {head:#x} is not read here")


def _sized(kind: type, size: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind in (str, bytes):
        content = data[at : at + size]
        if len(content) < size:
            raise IndexError
        return content.decode() if kind is str else content, at + size
    values = []
    for _ in range(2 * size if kind is dict else size):
        value, at = _value(data, at)
        values.append(value)
    return dict(zip(values[::2], values[1::2], strict=True)) if kind is dict else values, at
