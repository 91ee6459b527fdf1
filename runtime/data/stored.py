"""Arrays of an uncompressed `.npz` archive, mapped where they lie in it."""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

MAPPED_FROM = 64 << 20
"""The size in bytes from which on an archive is mapped. Smaller ones are read, and then checked as a whole."""

_SUFFIX = ".npy"
_ENCRYPTED = 1
# The part of a member's header in the archive that has a fixed size, and the lengths of the two names behind it.
_HEADER, _MAGIC = struct.Struct("<4s22xHH"), b"PK\x03\x04"


def open_stored(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a large archive by name, mapped and read-only; None if it is small, or has one that must be read.

    An array must be read that is compressed, in Fortran order, of foreign byte order, or empty.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if path.stat().st_size < MAPPED_FROM or len({each.filename for each in members}) < len(members):
                return None
            return {each.filename.removesuffix(_SUFFIX): _mapped(path, stream, each) for each in members}
    except Exception:  # of a damaged archive NumPy and zipfile may raise any; reading it says what is wrong
        return None


def _mapped(path: Path, stream: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
        raise ValueError("compressed or encrypted")
    stream.seek(member.header_offset)
    magic, *lengths = _HEADER.unpack(stream.read(_HEADER.size))
    begin = stream.seek(sum(lengths), 1)
    if magic != _MAGIC or not member.filename.endswith(_SUFFIX):
        raise ValueError("no array")
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, is_fortran, dtype = read[np.lib.format.read_magic(stream)](stream)
    if is_fortran or not dtype.isnative or dtype.hasobject:
        raise ValueError("cannot be mapped")
    offset = stream.tell()
    if offset + math.prod(shape) * dtype.itemsize != begin + member.file_size:
        raise ValueError("truncated")
    return np.memmap(path, dtype, "r", offset, shape)
