"""The installed release of IREE: whether it can read a bundle, and its known weaknesses."""

from __future__ import annotations

import importlib.metadata
import logging
import re

from sonew_compiled.errors import SonewError
from sonew_compiled.pages import page
from sonew_compiled.runtime.bundle import Bundle

logger = logging.getLogger("sonew_compiled")

# The first release that does not check register numbers in bytecode, and the first that does so again.
_UNCHECKED = (3, 10, 0), (3, 13, 1)


def check_versions(bundle: Bundle) -> None:
    """Compares the compiler that made the bundle with the runtime installed here, by major and minor version.

    A newer runtime is logged as a warning: it can usually read the code of an older compiler.

    Raises:
      SonewError: the runtime is older than the compiler.
    """
    made_with = bundle.manifest.versions.get("iree-base-compiler", "")
    installed = runtime_version()
    if not (_release(made_with) and _release(installed)) or _release(made_with) == _release(installed):
        return
    if _release(installed) < _release(made_with):
        raise SonewError(
            f"the bundle {bundle.path} was made by iree-base-compiler {made_with} and iree-base-runtime {installed} "
            f"is older: upgrade it with `pip install 'iree-base-runtime>={made_with}'`"
        )
    logger.warning(
        "the bundle %s was made by iree-base-compiler %s; iree-base-runtime %s is newer: if it fails, compile it again",
        bundle.path,
        made_with,
        installed,
    )


def runtime_version() -> str:
    """The version of the installed IREE runtime; empty if the installation has none."""
    try:
        return importlib.metadata.version("iree-base-runtime")
    except importlib.metadata.PackageNotFoundError:
        return ""


def runtime_weakness() -> str:
    """The checks of executables that the installed IREE runtime lacks, in words; empty if none is known.

    The bytecode verifier of some releases accepts register numbers that a function does not have.
    """
    installed = runtime_version()
    first, fixed = _UNCHECKED
    if not first <= _numbers(installed, 3) < fixed:
        return ""
    return (
        f"iree-base-runtime {installed} does not check register numbers in bytecode, so that a damaged .vmfb "
        f"may pass its verifier: upgrade to {'.'.join(map(str, fixed))} when it is released, "
        f"see {page('concepts/security.md')}"
    )


def _release(version: str) -> tuple[int, ...]:
    """The major and minor version; empty if there is none."""
    return _numbers(version, 2)


def _numbers(version: str, count: int) -> tuple[int, ...]:
    """The first numbers of a version, at most `count`."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = tuple(int(number) for number in match.group().split(".")[:count]) if match else ()
    return numbers if len(numbers) >= 2 else ()
