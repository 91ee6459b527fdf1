"""The models in docs/examples: each is what its first line says, and traces for every target."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import jax
import optax
import pytest

from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.trace import trace_training

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.parametrize(
    ("name", "parameters", "takes"),
    [
        ("perceptron", 730, ""),
        ("resnet", 77_818, "state"),
        ("lstm", 24_458, ""),
        ("vae", 324_416, "rng"),
        ("unet", 14_929, "rng"),
        ("gpt", 211_328, "state"),
    ],
)
def test_an_example_traces(name: str, parameters: int, takes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    model = importlib.import_module(name).model
    functions: dict[str, Any] = {
        key: value for key, value in model.functions().items() if key not in ("unit", "classes")
    }
    made = ModelFunctions(**functions)
    params, _ = jax.eval_shape(made.first, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    text = trace_training(**functions, batch=model.batch(4), optimizer=optax.sgd).text
    assert "custom_call" not in text
    assert ('sonew.name = "random/step"' in text, made.has_state) == (takes == "rng", takes == "state")
