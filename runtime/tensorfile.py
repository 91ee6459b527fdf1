"""Named tensors in safetensors files, written atomically and checked when read.

The safetensors library reads the files. It does not write them here: its NumPy writer orders the metadata at random, so
that equal states would give unequal files, and builds the whole file in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.dtypes import as_dtype

_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in _CODES.items()}
_DIGEST = "sha256"


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes `tensors` so that `path` holds the whole new file or, whatever happens, what it held before.

    The metadata gets one more entry, `sha256`, of everything else in the file.

    Raises:
      SonewError: the file cannot be written, such as for a full disk.
    """
    header: dict[str, dict[str, Any]] = {"__metadata__": dict(metadata or {})}
    chunks: list[bytes | memoryview] = []
    offset = 0
    # Widest first keeps every tensor aligned to its own size.
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        array = np.asarray(tensors[name], order="C")
        if array.dtype.name not in _CODES:
            raise UsageError(f"tensor {name!r} has dtype {array.dtype}, which a safetensors file does not hold")
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        chunks.append(array.reshape(-1).view(np.uint8).data)
    header["__metadata__"][_DIGEST] = _digest(header, chunks)
    text = _compact(header)
    text += b" " * (-len(text) % 8)
    write_atomically(path, [struct.pack("<Q", len(text)), text, *chunks])


def _compact(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def _digest(header: Mapping[str, Any], chunks: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of a file's header, without the digest itself, and its tensors."""
    metadata = {key: value for key, value in header["__metadata__"].items() if key != _DIGEST}
    digest = hashlib.sha256(_compact({**header, "__metadata__": metadata}))
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Writes a file through a temporary one beside it, flushed to the disk before it takes the name.

    Raises:
      SonewError: the file cannot be written; what was at `path` is unharmed and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        # The rename itself must reach the disk; some file systems do not let a directory be flushed.
        with contextlib.suppress(OSError):
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
    except OSError as error:
        raise SonewError(
            f"{path} cannot be written ({error.strerror or error}): free space, or choose another --output"
        ) from None


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors.

    Raises:
      UsageError: there is no such file.
      SonewError: it is not a whole safetensors file.
    """
    try:
        with path.open("rb") as stream:
            return {key: str(value) for key, value in _read_header(path, stream)["__metadata__"].items()}
    except OSError as error:
        raise _unreadable(path, error) from None


def _read_header(path: Path, stream: BinaryIO) -> dict[str, Any]:
    """The header as it is, with empty metadata if it has none; leaves the stream at the first tensor."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    start = stream.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    try:
        header = json.loads(stream.read(length)) if length <= size - 8 else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise SonewError(f"{path} is not a whole safetensors file: it is truncated, corrupt or of another kind")
    if not isinstance(header.setdefault("__metadata__", {}), dict):
        raise SonewError(f"{path} has metadata that is not an object: it is corrupt")
    return header


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name; the file is checked against its `sha256` if it has one.

    Raises:
      UsageError: there is no such file.
      SonewError: it is truncated, corrupt, or holds a dtype that NumPy and ml_dtypes do not.
    """
    try:
        content = path.read_bytes()
        stream = io.BytesIO(content)
        header = _read_header(path, stream)
        entries = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise _unreadable(path, error) from None
    except safetensors.SafetensorError as error:
        raise SonewError(f"{path} is not a whole safetensors file ({error}): it is truncated or corrupt") from None
    expected = header["__metadata__"].get(_DIGEST)
    if expected is not None and expected != _digest(header, [memoryview(content)[stream.tell() :]]):
        raise SonewError(f"{path} is corrupt: it does not have the SHA-256 that it says")
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _NAMES:
            raise SonewError(f"{path} holds {name!r} as {entry['dtype']}: convert it to one of {', '.join(_NAMES)}")
        dtype = as_dtype(_NAMES[entry["dtype"]])
        tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return tensors


def _unreadable(path: Path, error: OSError) -> SonewError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"there is no file {path}: check the name")
    return SonewError(f"{path} cannot be read ({error.strerror or error}): check that it is a file you may read")
