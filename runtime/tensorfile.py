"""Named tensors in safetensors files, written atomically and checked when read.

The safetensors library reads the files. It does not write them here: its NumPy writer orders the metadata at random, so
that equal states would give unequal files, and builds the whole file in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

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

    The metadata gets one more entry, `sha256`, of the tensors' bytes.

    Raises:
      SonewError: the file cannot be written, such as for a full disk.
    """
    entries: dict[str, object] = {}
    digest = hashlib.sha256()
    chunks: list[bytes | memoryview] = []
    offset = 0
    # Widest first keeps every tensor aligned to its own size.
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        array = np.asarray(tensors[name], order="C")
        if array.dtype.name not in _CODES:
            raise UsageError(f"tensor {name!r} has dtype {array.dtype}, which a safetensors file does not hold")
        entries[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        chunk = array.reshape(-1).view(np.uint8).data
        digest.update(chunk)
        chunks.append(chunk)
    header = json.dumps(
        {"__metadata__": {**(metadata or {}), _DIGEST: digest.hexdigest()}, **entries}, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    write_atomically(path, [struct.pack("<Q", len(header)), header, *chunks])


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
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            header = json.loads(stream.read(length)) if length <= size - 8 else None
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise SonewError(f"{path} is not a whole safetensors file: it is truncated, corrupt or of another kind")
    metadata = header.get("__metadata__")
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name; checked against the `sha256` of its metadata if it has one.

    Raises:
      UsageError: there is no such file.
      SonewError: it is truncated, corrupt, or holds a dtype that NumPy and ml_dtypes do not.
    """
    metadata = read_metadata(path)
    try:
        content = path.read_bytes()
        entries = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise _unreadable(path, error) from None
    except safetensors.SafetensorError as error:
        raise SonewError(f"{path} is not a whole safetensors file ({error}): it is truncated or corrupt") from None
    expected = metadata.get(_DIGEST)
    if expected is not None:
        start = 8 + struct.unpack("<Q", content[:8])[0]
        if hashlib.sha256(memoryview(content)[start:]).hexdigest() != expected:
            raise SonewError(f"{path} is corrupt: its tensors do not have the SHA-256 that its header says")
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
