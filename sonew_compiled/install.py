"""The command that installs what is missing, for the package as it was installed here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sonew_compiled.errors import SonewError

_NAME = "sonew-compiled"
_COMPILER = ("jax", "optax", "iree.compiler")

# The modules that each extra of pyproject.toml brings. A module's own extra comes before those that have it too.
MODULES = {
    "compile": _COMPILER,
    "flax": (*_COMPILER, "flax"),
    "equinox": (*_COMPILER, "equinox"),
    "haiku": (*_COMPILER, "haiku"),
    "plot": ("matplotlib",),
    "sign": ("cryptography",),
    "mpi": ("mpi4py",),
    "nccl": ("nvidia.nccl",),
    "tpu": ("libtpu",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "bench": (*_COMPILER, "matplotlib", "jinja2", "plotly", "psutil"),
    "parquet": ("pyarrow",),
    "tune": (*_COMPILER, "optuna"),
}


def install_command(*extras: str) -> str:
    """The command that installs these extras, from the checkout, the wheel or the index that this package came from."""
    names = ",".join(extras)
    origin, is_editable = _origin()
    if origin is None:
        source = f"{_NAME}[{names}]"
    elif origin.exists():
        source = f"{origin}[{names}]"
    else:
        # The wheel is gone, and its name alone may be on no index.
        return _pip(*_requirements(extras))
    return _pip(*(["-e"] if is_editable else []), source)


def lacks(module: str) -> bool:
    """Whether a module is not installed."""
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:  # its parent package is not installed
        return True


def extra_of(module: str) -> str | None:
    """The extra that brings a module; None if no extra does."""
    having = (extra for extra, names in MODULES.items() if any(f"{module}.".startswith(f"{name}.") for name in names))
    return "compile" if module == "jaxlib" else next(having, None)


def require(*extras: str, purpose: str, modules: tuple[str, ...] = ()) -> None:
    """Checks that extras are installed.

    Args:
      extras: their names.
      purpose: what needs them, as the subject of the message.
      modules: those of their modules that are needed; by default all.

    Raises:
      SonewError: a module is missing; the message has all that are, and the command that installs their extras.
    """
    needed = {extra: [name for name in MODULES[extra] if name in (modules or MODULES[extra])] for extra in extras}
    missing = {extra: lacking for extra, names in needed.items() if (lacking := [*filter(lacks, names)])}
    if missing:
        raise SonewError(f"{purpose} needs {_not_installed(*missing.values())}: {install_command(*missing)}")


def how_to_import(name: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error of a bare package without what a name of it needs, with the command that installs its extra."""
    extra = extra_of(error.name or "")
    if extra is None:
        return error
    said = f"{name} needs {_not_installed([str(error.name)])}: {install_command(extra)}"
    return ModuleNotFoundError(said, name=error.name)


def _not_installed(*modules: Sequence[str]) -> str:
    names = [name for each in modules for name in each]
    return f"{', '.join(names)}, which {'is' if len(names) == 1 else 'are'} not installed"


def _origin() -> tuple[Path | None, bool]:
    """The file or folder that the package was installed from, None for an index, and whether it is editable."""
    try:
        text = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
        described = json.loads(text) if text else {}
        url = urlsplit(described.get("url", ""))
        is_editable = bool(described.get("dir_info", {}).get("editable", False))
    except (importlib.metadata.PackageNotFoundError, ValueError, AttributeError):
        return None, False
    return (Path(unquote(url.path)) if url.scheme == "file" else None), is_editable


def _requirements(extras: tuple[str, ...]) -> list[str]:
    """The requirements of extras, without their markers."""
    found = []
    for line in importlib.metadata.requires(_NAME) or []:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        if any(f"extra == {quote}{extra}{quote}" in marker for extra in extras for quote in "'\""):
            found.append(requirement)
    return found


def _pip(*words: str) -> str:
    """The command of pip for this environment, which may not be the one whose pip is found first."""
    first = shutil.which("pip")
    if first is not None and Path(first).parent == Path(sys.executable).parent:
        begin = ["pip"]
    elif lacks("pip"):
        begin = ["pip", "--python", sys.executable]  # any pip from 22.3 on
    else:
        begin = [sys.executable, "-m", "pip"]
    return " ".join([*map(shlex.quote, [*begin, "install"]), *(_quoted(word) for word in words)])


def _quoted(word: str) -> str:
    """A requirement in quotes, so that no shell reads its brackets."""
    return word if word == "-e" else f"'{word}'" if "'" not in word else shlex.quote(word)
