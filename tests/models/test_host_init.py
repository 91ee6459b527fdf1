"""`--init host`: an `init` that cannot be traced gives constants of the bundle, for every seed of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import UsageError, compile_training, host_init
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle


def orthogonal() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(7).normal(size=(4, 3)))[0].astype(np.float32)


def init(key: jax.Array) -> Any:
    words = [int(word) for word in jax.random.key_data(key)]  # which no tracer can be
    return {"w": orthogonal(), "order": np.argsort(orthogonal()[:, 0])}, {"seed": np.array(words, np.uint32)}


def loss(params: Any, batch: Any, *, state: Any) -> Any:
    return jnp.mean((batch["x"][:, params["order"]] @ params["w"]) ** 2), state


GIVEN: dict[str, Any] = {
    "loss": loss,
    "init": init,
    "optimizer": lambda rate: optax.sgd(rate),
    "batch": {"x": jax.ShapeDtypeStruct((5, 4), jnp.float32)},
    "per_example": False,
    "learning_rate": 0.1,
}


def test_what_init_gave_here_is_what_every_run_starts_from(tmp_path: Path, cpu: Device) -> None:
    manifest = compile_training(**GIVEN, output=tmp_path / "bundle", init_on="host")
    assert manifest.init == "host"
    program = Program.load(open_bundle(tmp_path / "bundle"), cpu)
    for seed in (0, 5):
        state = TrainingState.initial(program, seed=seed)
        first = state.download()
        np.testing.assert_array_equal(first["params/w"], orthogonal())
        np.testing.assert_array_equal(first["params/order"], np.argsort(orthogonal()[:, 0]))
        assert first["state/seed"].tolist() == [0, 0]
    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    moved = x[:, first["params/order"]]
    state.step({"x": x}, 0.1)
    expected = orthogonal() - 0.1 * 2 / 15 * moved.T @ (moved @ orthogonal())
    np.testing.assert_allclose(state.parameters()["params/w"], expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = GIVEN | {"output": tmp_path / "bundle"}
    assert "--init is 'nowhere': give device or host" in refusal(
        UsageError, lambda: compile_training(**given, init_on="nowhere")
    )
    monkeypatch.setattr(host_init, "MOST_BYTES", 80)
    said = refusal(UsageError, lambda: compile_training(**given, init_on="host"))
    assert said.startswith("--init host would put 88 bytes of parameters into the code, where 80 is the most")
