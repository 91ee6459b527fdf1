"""Settings that a compiled step takes at run time: the same step as one that has them compiled in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled.backward import loss_and_signals
from sonew_compiled.compile import compile_training
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.optimizer._runtime_number import RuntimeNumber
from sonew_compiled.presets import OPTIMIZERS, OptimizerSettings, optimizer_settings, runtime_settings_of, settings_of
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle

# Far enough from the preset to show within a few steps; the loss must still go down.
OTHER = {"b1": 0.5, "b2": 0.6, "eps": 3e-2}
BATCH = {"x": jax.ShapeDtypeStruct((16, 5), jnp.float32), "y": jax.ShapeDtypeStruct((16, 3), jnp.float32)}
TUNED = [name for name in OPTIMIZERS if runtime_settings_of(name)]


def init(key: jax.Array) -> Any:
    first, second = jax.random.split(key)
    return {
        "kernel": jax.random.normal(first, (5, 4)) / 2,
        "bias": jnp.zeros(4),
        "out": jax.random.normal(second, (4, 3)) / 2,
    }


def loss(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["kernel"] + params["bias"])
    return jnp.mean(jnp.sum((hidden @ params["out"] - batch["y"]) ** 2, axis=-1))


def data(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    x = rng.normal(size=(16, 5)).astype(np.float32)
    return {"x": x, "y": np.tanh(x[:, :3])}


def other_of(name: str) -> dict[str, float]:
    """The setting of `OTHER`, else half of the value that ships."""
    shipped = optimizer_settings(name).values
    return {
        key: OTHER[key] if OTHER.get(key, shipped[key]) != shipped[key] else shipped[key] / 2
        for key in runtime_settings_of(name)
    }


def settings(name: str, **given: float) -> OptimizerSettings:
    return optimizer_settings(name, **given)


def runner(optimizer: OptimizerSettings) -> Callable[..., list[float]]:
    """A function from traced settings to the losses of eight steps under `jax.jit`, which is compiled once."""
    make = optimizer_factory(optimizer, loss=loss, batch=BATCH)

    @jax.jit
    def step(params: Any, inner: Any, batch: Any, traced: Any) -> tuple[Any, Any, jax.Array]:
        tx = make(1e-2, **traced)
        value, signals = loss_and_signals(tx, loss, params, inner, batch)
        updates, inner = tx.update(signals, inner, params)
        return optax.apply_updates(params, updates), inner, value

    def run(**traced: float) -> list[float]:
        params = init(jax.random.key(0))
        inner = make(1e-2).init(params)
        found = []
        for index in range(8):
            params, inner, value = step(params, inner, data(index), {k: np.float32(v) for k, v in traced.items()})
            found.append(float(value))
        return found

    return run


@pytest.mark.parametrize("name", TUNED)
def test_traced_settings_mean_what_numbers_mean(name: str) -> None:
    interval = {"precond_interval": 3} if "precond_interval" in settings_of(name) else {}
    shipped, other = settings(name, **interval), other_of(name)
    run = runner(shipped)
    assert run(**other) == pytest.approx(runner(settings(name, **interval, **other))(), rel=1e-3)
    same = {key: shipped.values[key] for key in other}
    for key in other:
        assert run(**{**same, key: other[key]}) != pytest.approx(run(**same), rel=1e-4), f"{key} must matter here"


def test_a_number_that_would_be_fixed_is_refused() -> None:
    number = RuntimeNumber(0.9, np.float32(0.5))
    assert 0 <= number < 1
    assert 1 - number == 0.5
    with pytest.raises(TypeError):
        math.sqrt(number)  # type: ignore[arg-type]


def compiled(path: Path, optimizer: OptimizerSettings, *, at_run_time: bool = False) -> Path:
    names = runtime_settings_of(optimizer.name) if at_run_time else ()
    compile_training(loss, init, optimizer, BATCH, output=path, runtime_settings=names, check=False)
    return path


def steps(state: TrainingState) -> list[float]:
    rate = state.program.device.upload(np.array(1e-2, np.float32))
    return [state.step(state.program.upload_batch(data(index)), rate) for index in range(8)]


@pytest.mark.parametrize("name", ["tridiag-sonew", "shampoo"])
def test_one_bundle_for_every_value(cpu: Device, tmp_path: Path, name: str) -> None:
    other = other_of(name)
    bundle = open_bundle(compiled(tmp_path / "any", settings(name), at_run_time=True))
    assert bundle.manifest.runtime_settings == tuple(sorted(other))
    program = Program.load(bundle, cpu)
    fixed = Program.load(open_bundle(compiled(tmp_path / "fixed", settings(name, **other))), cpu)
    shipped = Program.load(open_bundle(compiled(tmp_path / "shipped", settings(name))), cpu)
    assert shipped.manifest.runtime_settings == ()
    state = TrainingState.initial(program, seed=0)
    # With eps for an input, the iteration for Shampoo's roots takes as many steps as the least eps needs.
    close = 1e-3 if name == "shampoo" else 1e-4
    assert steps(state) == pytest.approx(steps(TrainingState.initial(shipped, seed=0)), rel=close)
    state = TrainingState.initial(program, seed=0)
    state.use(other)
    assert steps(state) == pytest.approx(steps(TrainingState.initial(fixed, seed=0)), rel=close)


@pytest.mark.parametrize(
    ("optimizer", "names", "said"),
    [
        (
            optimizer_settings("band-sonew"),
            ("band",),
            "band of band-sonew cannot be a runtime setting; give b1",
        ),
        (optimizer_settings("ons"), ("eps",), "eps of ons cannot be a runtime setting; give none"),
        (optax.adam, ("b1",), "the optimizer is a function; give an OptimizerSettings"),
    ],
)
def test_what_cannot_be_is_refused(
    refusal: Callable[..., str], tmp_path: Path, optimizer: Any, names: tuple[str, ...], said: str
) -> None:
    def compile_it() -> None:
        compile_training(loss, init, optimizer, BATCH, output=tmp_path / "x", learning_rate=0.1, runtime_settings=names)

    assert said in refusal(UsageError, compile_it)


def test_a_manifest_without_the_default_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    path = compiled(tmp_path / "bundle", settings("momentum"), at_run_time=True) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["optimizer"]["b1"] = "much"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert "train_step takes 'b1', for which the optimizer has 'much'" in refusal(
        SonewError, lambda: open_bundle(path.parent)
    )
    del manifest["optimizer"]["b1"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert "train_step takes 'b1', for which the optimizer has None" in refusal(
        SonewError, lambda: open_bundle(path.parent)
    )
