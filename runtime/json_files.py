"""JSON from unknown authors, which is read within limits and refused on one line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NoReturn

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.schema import Check, Unfit

logger = logging.getLogger("sonew_compiled")

LARGEST = 16 << 20
"""The most bytes of a file; its Python objects take up to twenty times as many."""


def parse(content: bytes, *, constants: bool = False) -> Any:
    """The value of a JSON text in UTF-8; with `constants` it may have NaN and Infinity, which JSON does not have.

    Raises:
      Unfit: the text is not JSON, with the reason.
    """
    try:
        return json.loads(content.decode(), parse_constant=None if constants else _refuse_constant)
    except Unfit:
        raise
    except UnicodeDecodeError:
        raise Unfit("it is not text in UTF-8") from None
    except RecursionError:
        raise Unfit("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Unfit(f"it is not JSON, {error.msg} at character {error.pos + 1:,}") from None
    except ValueError:
        raise Unfit("it has a number of thousands of digits") from None


def read_content(path: Path, *, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Raises:
      Unfit: the path is no regular file, or the file is larger than `largest`.
      OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file():  # reading a pipe would wait
        raise Unfit("it is no file")
    with path.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise Unfit(f"it is larger than {largest:,} bytes")
    return content


def read_lines(
    path: Path, check: Check, *, what: str, remedy: str, largest: int = LARGEST, constants: bool = False
) -> list[Any]:
    """The values of the lines of a file of JSON lines; none if there is no file.

    A last line that was cut off, by a full disk or a power cut, is left out with a warning.

    Args:
      path: the file.
      check: the check of a line.
      what: the kind of a line in errors, as "a line of metrics".
      remedy: the remedy in errors.
      largest: the most bytes of the file.
      constants: see `parse`.

    Raises:
      SonewError: the file cannot be read, or a line fails the check.
    """
    if not path.exists():
        return []
    try:
        content = read_content(path, largest=largest)
    except OSError as error:
        raise SonewError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    except Unfit as error:
        raise SonewError(f"{path} cannot be read ({error}): {remedy}") from None
    lines = content.split(b"\n")
    values = []
    for number, line in enumerate(lines, 1):
        is_last = number == len(lines)
        if is_last and not line:
            break
        try:
            values.append(check(parse(line, constants=constants), "the line"))
        except Unfit as error:
            if not is_last:
                raise SonewError(f"{path} line {number} is not {what} ({error}): {remedy}") from None
            logger.warning("%s: the last line was cut off, and is left out", path)
    return values


def end_last_line(path: Path, check: Check, *, constants: bool = False) -> None:
    """Prepares a file of JSON lines, if there is one, for more lines: removes a last line that was cut off.

    Raises:
      OSError: the file cannot be read or written.
    """
    if not path.exists():
        return
    with path.open("r+b") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole == len(content):
            return
        try:
            check(parse(content[whole:], constants=constants), "the line")
        except Unfit:
            stream.truncate(whole)
        else:  # an editor removed the last line break
            stream.write(b"\n")


def _refuse_constant(name: str) -> NoReturn:
    raise Unfit(f"it has {name}, which is no number of JSON")
