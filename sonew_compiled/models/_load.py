"""A model by its name on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.install import extra_of, install_command
from sonew_compiled.models._model import Model
from sonew_compiled.models.autoencoder import autoencoder, autoencoder_small
from sonew_compiled.models.classifier import classifier
from sonew_compiled.models.resnet18 import resnet18
from sonew_compiled.models.transformers import gpt_small, vit_small

_BUILT_IN: Mapping[str, Model] = MappingProxyType(
    {
        "autoencoder": autoencoder,
        "autoencoder-small": autoencoder_small,
        "classifier": classifier,
        "resnet18": resnet18,
        "gpt-small": gpt_small,
        "vit-small": vit_small,
    }
)


def load_model(name: str) -> Model:
    """The built-in model of that name, or the attribute that `package.module:attribute` names.

    Raises:
      UsageError: there is no such model, module or attribute, or it is not a `Model`.
      SonewError: importing the module failed.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(
            f"unknown model {name!r}; give {', '.join(_BUILT_IN)}, or package.module:attribute of a Model of yours"
        )
    # The entry is not removed, since a model may import its neighbours when it is traced.
    sys.path.insert(0, str(Path.cwd()))
    with user_code(name):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                extra = extra_of(error.name or "")
                how = f", which is not installed: {install_command(extra)}" if extra else "; install it"
                raise UsageError(f"--model {name}: importing {module_name} needs {error.name}{how}") from None
            raise UsageError(
                f"--model {name}: there is no module {error.name}; install it, or run sonew in the folder that it is in"
            ) from None
        model = getattr(module, attribute, None)
    if not isinstance(model, Model):
        found = "missing" if model is None else f"of type {type(model).__name__}"
        raise UsageError(f"--model {name}: {attribute} is {found} in {module_name}; make it a sonew_compiled.Model")
    return model


@contextmanager
def user_code(name: str) -> Iterator[None]:
    """Turns exceptions from the code of a user's model into one line with the place; other errors stay as they are."""
    try:
        yield
    except SonewError:
        raise
    except Exception as error:
        place = "" if name in _BUILT_IN else _place(error, name.partition(":")[0].partition(".")[0])
        if not place:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise SonewError(f"--model {name}: {place} raised {reason}") from error


def _place(error: Exception, package: str) -> str:
    """The file and the line in the package where the error arose; empty if it arose elsewhere."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    roots = [Path(root) for root in spec.submodule_search_locations or [spec.origin or ""]]
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    own = [(file, line) for file, line in places if any(Path(file).is_relative_to(root) for root in roots)]
    return f"{own[-1][0]} line {own[-1][1]}" if own else ""
