"""NumPy's files: `.npy` and `.npz`, read without running code and written to the same bytes for the same arrays."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.shown import shown


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a `.npz` file; NumPy itself refuses some names, such as `file`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
    return content.getvalue()


def read_numpy(path: Path) -> tuple[dict[str | None, np.ndarray], str]:
    """The arrays in a file by name, and the file's SHA-256; a single array has the name None."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {None: loaded}, digest
            with loaded:
                arrays = {key: loaded[key] for key in loaded.files}
    except OSError as error:
        raise SonewError(f"cannot read {path} ({error.strerror or error}); save or copy it again") from None
    except MemoryError:
        raise SonewError(f"{path} needs more memory than there is, or is corrupt; save a smaller data set") from None
    except Exception as error:
        # For a damaged file, the readers of headers and archives may raise any exception: ValueError, BadZipFile,
        # EOFError, even TokenError and TypeError. NumPy's own message may have several lines, and may suggest
        # allow_pickle, which is no remedy here.
        pickled = " (it holds Python objects)" if "Object arrays" in str(error) else ""
        raise SonewError(
            f"{path} is not a NumPy file of plain arrays{pickled}, or is truncated or corrupt; save it again with "
            "numpy.save or numpy.savez"
        ) from None
    for key, array in arrays.items():
        # NumPy returns members that are no arrays as bytes.
        if not isinstance(array, np.ndarray):
            raise SonewError(
                f"{path} holds {shown(str(key))[1:-1]}, which is not an array; save it again with numpy.savez"
            )
    return arrays, digest
