"""Named tensors in safetensors files, written atomically and checked when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.json_files import parse
from sonew_compiled.runtime.schema import Unfit, mapped, path_text
from sonew_compiled.runtime.shown import shown

# All metadata is one JSON object under this key, because the library writes several keys in random order, and equal
# states must give equal files.
_METADATA = "sonew"
_DIGEST = "sha256"
_LONGEST_HEADER = 1 << 20
# Paths among it.
_HEADER = mapped(path_text(10_000), 200)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes `tensors` atomically: `path` always holds the whole new file or the old one.

    Raises:
      SonewError: the file cannot be written, for example because the disk is full.
    """
    write_atomically(path, [tensor_bytes(tensors, metadata)])


def tensor_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """The content of a safetensors file; its metadata gets one more entry, `sha256`, the hash of everything else."""
    # What is hashed has the bytes that the file has.
    arrays = {
        name: np.asarray(array, dtype=np.asarray(array).dtype.newbyteorder("="), order="C")
        for name, array in tensors.items()
    }
    text = json.dumps({**(metadata or {}), _DIGEST: _digest(arrays, metadata or {})}, sort_keys=True)
    content: bytes = safetensors.numpy.save(arrays, metadata={_METADATA: text})
    return content


def write_atomically(path: Path, chunks: Iterable[bytes]) -> None:
    """Writes a file through a temporary one beside it, which is flushed to the disk before it takes the name.

    Raises:
      SonewError: the file cannot be written; the old file is unchanged, and the temporary one is removed.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(b"".join(chunks))
            _flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        # The rename itself must reach the disk; some file systems do not let a directory be flushed.
        with contextlib.suppress(OSError):
            _flush(path.parent)
    except OSError as error:
        raise SonewError(
            f"{path} cannot be written ({error.strerror or error}): free space, or choose another --output"
        ) from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of a file's metadata, without the digest itself, and of its tensors."""
    specs = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
    rest = {key: value for key, value in metadata.items() if key != _DIGEST}
    digest = hashlib.sha256(json.dumps([rest, specs], sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file from `write_tensors`; empty for files of other programs.

    Raises:
      UsageError: there is no such file.
      SonewError: the file is not a whole safetensors file.
    """
    with _opened(path) as file:
        return _metadata(path, file)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by name; the file is checked against its `sha256` if it has one.

    Raises:
      UsageError: there is no such file.
      SonewError: it is truncated, corrupt, or holds a dtype that NumPy and ml_dtypes do not.
    """
    with _opened(path) as file:
        metadata = _metadata(path, file)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
    if _DIGEST in metadata and metadata[_DIGEST] != _digest(tensors, metadata):
        raise SonewError(f"{path} is corrupt: it does not have the SHA-256 that it says")
    return tensors


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safetensors.safe_open]:
    try:
        with path.open("rb"):  # the library's own errors do not say why a file cannot be opened
            pass
        with safetensors.safe_open(path, "numpy") as file:
            yield file
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}: check the name") from None
    except OSError as error:
        raise SonewError(
            f"{path} cannot be read ({error.strerror or error}): check that it is a file you may read"
        ) from None
    except AttributeError as error:  # the library looks for a dtype in NumPy
        raise SonewError(
            f"{path} holds a dtype that cannot be read ({shown(str(error))}): store float32 or bfloat16"
        ) from None
    except safetensors.SafetensorError as error:
        raise SonewError(
            f"{path} is not a whole safetensors file ({shown(str(error))}): it is truncated or corrupt"
        ) from None


def _metadata(path: Path, file: safetensors.safe_open) -> dict[str, str]:
    header = (file.metadata() or {}).get(_METADATA, "{}").encode(errors="surrogatepass")
    try:
        if len(header) > _LONGEST_HEADER:
            raise Unfit(f"it has more than {_LONGEST_HEADER:,} bytes")
        metadata: dict[str, str] = _HEADER(parse(header), "the header")
    except Unfit as error:
        raise SonewError(f"{path} has metadata that no checkpoint has ({error}): it is corrupt") from None
    return metadata
