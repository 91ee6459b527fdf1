"""Reads the IDX format of MNIST, gzipped or not.

An IDX file is two zero bytes, a code for the dtype, the number of dimensions, each dimension as a big-endian uint32,
and the elements in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, counted

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def unpacked(path: Path, *, remedy: str, limit: int = -1) -> bytes:
    """The contents of a file, decompressed if the contents are gzip; the name does not matter.

    Args:
      path: the file.
      remedy: the end of the error for a file that cannot be read.
      limit: stop after this many unpacked bytes; -1 for no limit.

    Raises:
      SonewError: the file cannot be read, or is truncated or corrupt gzip.
    """
    try:
        with path.open("rb") as stream:
            packed = stream.peek(2)[:2] == _GZIP_MAGIC
            if not packed:
                return stream.read(limit)
            with gzip.GzipFile(fileobj=stream) as unzipped:
                return unzipped.read(limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SonewError(f"{path} is truncated or corrupt gzip ({error}); {remedy}") from None
    except OSError as error:
        raise SonewError(f"cannot read {path} ({error.strerror or error}); {remedy}") from None


LONGEST_HEADER = 4 + 4 * 255
"""Bytes of the header of the most dimensions."""


def idx_size(start: bytes) -> int:
    """The bytes of an IDX file whose elements are bytes, by its header; without one, the bytes of `start`."""
    count = start[3] if len(start) > 3 else 0
    header = 4 + 4 * count
    if len(start) < header:
        return len(start)
    shape: tuple[int, ...] = struct.unpack(f">{count}I", start[4:header])
    return header + math.prod(shape)


def parse_idx(content: bytes, *, ndim: int, source: str, remedy: str) -> np.ndarray:
    """The array in an IDX file of unsigned bytes.

    Args:
      content: the unpacked file.
      ndim: the number of dimensions that it must have: 3 for images, 1 for labels.
      source: names the file in errors.
      remedy: the end of the error.

    Returns:
      A read-only uint8 array of `ndim` dimensions that shares the memory of `content`.

    Raises:
      SonewError: the file is not IDX, has another dtype or number of dimensions, or its length contradicts its header.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise SonewError(f"{source} is not an IDX file: it starts with {content[:4].hex() or 'nothing'}; {remedy}")
    code, found_ndim = content[2], content[3]
    if code != _UNSIGNED_BYTE:
        raise SonewError(f"{source} has IDX dtype 0x{code:02x}; only unsigned bytes (0x08) are read; {remedy}")
    if found_ndim != ndim:
        raise SonewError(f"{source} has {counted(found_ndim, 'dimension')} where {ndim} are expected; {remedy}")
    header = 4 + 4 * ndim
    if len(content) < header:
        raise SonewError(f"{source} is truncated: {len(content)} bytes, {header} in the header alone; {remedy}")
    shape = struct.unpack(f">{ndim}I", content[4:header])
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise SonewError(
            f"{source} has {len(content)} bytes; its header asks for {expected}, shape {shape}: it is truncated or "
            f"corrupt; {remedy}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
