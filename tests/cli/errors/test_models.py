"""Models of a user that are missing, do not run or do not fit."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.runtime.tensorfile import write_tensors

Refused = Callable[..., str]


MODELS = {
    "raises": "raise RuntimeError('no luck\\nat all')",
    "misspelt": "def f(:\n    pass",
    "needs": "import package_that_nobody_has",
    "other": "model = 5",
    "loss_raises": """
        import jax, jax.numpy as jnp
        from sonew_compiled import Model
        def loss(params, batch):
            return jnp.mean(batch["image"] @ params)
        model = Model(init=lambda key: jnp.zeros((3, 3)), loss=loss,
                      batch=lambda n: {"image": jax.ShapeDtypeStruct((n, 5), jnp.float32)})
        """,
    "loss_vector": """
        import jax, jax.numpy as jnp
        from sonew_compiled import Model
        model = Model(init=lambda key: jnp.zeros((5,)), loss=lambda p, b: b["image"] @ p,
                      batch=lambda n: {"image": jax.ShapeDtypeStruct((n, 5), jnp.float32)})
        """,
    "batch_ints": """
        import jax.numpy as jnp
        from sonew_compiled import Model
        model = Model(init=lambda key: jnp.zeros((5,)), loss=lambda p, b: p.sum(), batch=lambda n: {"image": n})
        """,
    "batch_raises": """
        import jax.numpy as jnp
        from sonew_compiled import Model
        model = Model(init=lambda key: jnp.zeros((5,)), loss=lambda p, b: p.sum(), batch=lambda: None)
        """,
}


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("nonsense", 2, ("unknown model 'nonsense'", "autoencoder", "package.module:attribute")),
        (":model", 2, ("unknown model ':model'",)),
        ("nowhere:model", 2, ("no module nowhere", "run sonew in the folder that it is in")),
        ("nowhere.inner:model", 2, ("no module nowhere",)),
        ("other:thing", 2, ("thing is missing in other", "make it a sonew_compiled.Model")),
        ("other:model", 2, ("model is of type int in other", "make it a sonew_compiled.Model")),
        ("needs:model", 2, ("importing needs needs package_that_nobody_has; install it",)),
        ("raises:model", 1, ("raises.py line 1 raised RuntimeError: no luck",)),
        ("misspelt:model", 1, ("misspelt.py line 1 raised SyntaxError",)),
        ("loss_raises:model", 1, ("loss_raises.py line 4 raised TypeError: dot_general",)),
        ("loss_vector:model", 2, ("the loss returned ShapeDtypeStruct(shape=(20,)", "it must be a scalar")),
        ("batch_ints:model", 2, ("the batch holds 20", "jax.ShapeDtypeStruct for every field")),
    ],
)
def test_models_of_a_user(refused: Refused, name: str, code: int, said: tuple[str, ...]) -> None:
    for module, source in MODELS.items():
        Path(f"{module}.py").write_text(textwrap.dedent(source).lstrip())
    try:
        message = refused(code, "compile", "--model", name, "--batch-size", 20, "-o", "out")
    finally:
        for module in MODELS:
            sys.modules.pop(module, None)
    for part in said:
        assert part in message
    assert not Path("out").exists()


def test_parameters_that_are_not_the_models(refused: Refused, small: Any) -> None:
    shutil.copy(small.path / "small_model.py", ".")
    line = ("compile", "--model", "small_model:model", "-o", "out", "--params", "p.safetensors")
    write_tensors(Path("p.safetensors"), {"params/down": np.zeros((36, 4), np.float32)})
    message = refused(1, *line)
    assert "p.safetensors does not hold this model's parameters: 'params/down' has shape [36, 4]" in message
    assert "[36, 5]" in message
    Path("p.safetensors").write_bytes(b"nonsense")
    assert "p.safetensors is not a whole safetensors file" in refused(1, *line)
    assert not Path("out").exists()
