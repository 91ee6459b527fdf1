"""Which release of IREE runs the code: whether it can read a bundle, and what it does not check."""

from __future__ import annotations

import importlib.metadata
import logging
import re

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.bundle import Bundle

logger = logging.getLogger("sonew_compiled")

# The first release that does not check register numbers in bytecode, and the first that does so again.
_UNCHECKED = (3, 10, 0), (3, 13, 1)


def check_versions(bundle: Bundle) -> None:
    """Compares the compiler that made the bundle with the runtime installed here, by major and minor version.

    A newer runtime is logged as a warning: it usually reads what an older compiler wrote.

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
    """The version of the installed IREE runtime, empty if it was installed in some way that has none."""
    try:
        return importlib.metadata.version("iree-base-runtime")
    except importlib.metadata.PackageNotFoundError:
        return ""


def runtime_weakness() -> str:
    """What the installed IREE runtime does not check of an executable, in words; empty if we know of nothing.

    Its verifier of bytecode passes numbers of registers that a function does not have.
    """
    installed = runtime_version()
    first, fixed = _UNCHECKED
    if not first <= _numbers(installed, 3) < fixed:
        return ""
    return (
        f"iree-base-runtime {installed} does not check register numbers in bytecode, so that a damaged .vmfb "
        f"may pass its verifier: upgrade to {'.'.join(map(str, fixed))} when it is released, see docs/security.md"
    )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor version; empty where there is none."""
    return _numbers(version, 2)


def _numbers(version: str, count: int) -> tuple[int, ...]:
    """The first numbers of a version, as many as there are of so many."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = tuple(int(number) for number in match.group().split(".")[:count]) if match else ()
    return numbers if len(numbers) >= 2 else ()
