"""Sparsified Online Newton, compiled ahead of time. JAX and the compiler load only when something here needs them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sonew_compiled.compile import compile_training as compile_training
    from sonew_compiled.errors import SonewError as SonewError
    from sonew_compiled.errors import UsageError as UsageError
    from sonew_compiled.models import Model as Model
    from sonew_compiled.optimizer import Preconditioner as Preconditioner
    from sonew_compiled.optimizer import ScaleBySonewState as ScaleBySonewState
    from sonew_compiled.optimizer import preconditioner as preconditioner
    from sonew_compiled.optimizer import scale_by_sonew as scale_by_sonew
    from sonew_compiled.optimizer import sonew as sonew
    from sonew_compiled.step_settings import StepSettings as StepSettings
    from sonew_compiled.tpu_program import load_tpu_program as load_tpu_program
    from sonew_compiled.weight_trees import load_weights as load_weights
    from sonew_compiled.weight_trees import save_weights as save_weights
    from sonew_compiled.weights_of_model import model_weights as model_weights

_HOMES = {
    "Model": "models",
    "Preconditioner": "optimizer",
    "ScaleBySonewState": "optimizer",
    "SonewError": "errors",
    "StepSettings": "step_settings",
    "UsageError": "errors",
    "compile_training": "compile",
    "load_tpu_program": "tpu_program",
    "load_weights": "weight_trees",
    "model_weights": "weights_of_model",
    "preconditioner": "optimizer",
    "save_weights": "weight_trees",
    "scale_by_sonew": "optimizer",
    "sonew": "optimizer",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        from sonew_compiled.install import how_to_import

        raise how_to_import(f"{__name__}.{name}", error) from None


def __dir__() -> list[str]:
    return sorted(_HOMES)
