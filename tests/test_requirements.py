"""The requirements on models and optimizers, whose violation is refused during tracing by a line with the tensor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from sonew_compiled import UsageError, compile_training
from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.passes import precision_policy
from sonew_compiled.presets import OPTIMIZERS, optimizer_settings, runtime_settings_of
from sonew_compiled.recurrence import recurrences
from sonew_compiled.requirements import slowest_decay
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle
from sonew_compiled.runtime.limits import check_setting
from sonew_compiled.trace import Traced, trace_training

BATCH = {"x": jax.ShapeDtypeStruct((8, 5), jnp.float32)}
ADAM = optax.adam


def init(key: jax.Array) -> Any:
    return {"w": jax.random.normal(key, (5, 3))}


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch["x"] @ params["w"]) ** 2)


def traced(**changes: Any) -> Traced:
    given: dict[str, Any] = {"init": init, "loss": loss, "optimizer": ADAM, "batch": BATCH}
    return trace_training(**given | changes)


def kept(first: Any, later: Any) -> Callable[[Any], optax.GradientTransformation]:
    """An optimizer with different states after `init` and after a step."""
    return lambda rate: optax.GradientTransformation(lambda p: first, lambda g, s, p=None: (g, later))


def of_any(params: Any, batch: Any) -> jax.Array:
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params)) * jnp.mean(jax.tree.leaves(batch)[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"init": lambda key: {"a/b": np.ones(2), "a": {"b": np.ones(3)}}, "loss": of_any},
            "params['a']['b'] and params['a/b'] are both called 'params/a/b'; rename one of them",
        ),
        (
            {"batch": {"a/b": BATCH["x"], "a": {"b": BATCH["x"]}}, "loss": of_any},
            "batch['a']['b'] and batch['a/b'] are both called 'batch/a/b'",
        ),
        (
            {"optimizer": kept({"0/1": np.ones(2), "0": [np.ones(3), np.ones(4)]}, None)},
            "optimizer['0'][1] and optimizer['0/1'] are both called 'optimizer/0/1'",
        ),
        ({"init": lambda key: {"": np.ones(2)}, "loss": of_any}, "'params/' has a part of its name that is empty"),
        ({"init": lambda key: {"a\nb": np.ones(2)}, "loss": of_any}, "'params/a\\nb' has characters that cannot"),
        ({"init": lambda key: {}, "loss": of_any}, "init gives no parameters"),
        (
            {"init": lambda key: {"w": init(key)["w"], "relu": jax.nn.tanh}},
            "'params/relu' is the function tanh, and a parameter must be an array",
        ),
        ({"init": lambda key: {"w": init(key)["w"], "name": "mlp"}}, "'params/name' is of type str"),
        ({"init": lambda key: {"w": init(key)["w"] * 1j}, "loss": of_any}, "params/w is of dtype complex64"),
        ({"loss": lambda p, b: loss(p, b).astype(jnp.int32)}, "the loss is of dtype int32, which has no gradient"),
        ({"loss": lambda p, b: 3.0}, "the loss returned 3.0, which is not a JAX array"),
        ({"loss": lambda p, b: jnp.mean(b["x"])}, "the loss depends on no parameter"),
        ({"loss": lambda p, b: jax.lax.stop_gradient(loss(p, b))}, "the loss has a gradient of zero everywhere"),
        ({"loss": lambda p, b: jnp.mean(b["x"] @ jnp.sign(p["w"]))}, "the loss has a gradient of zero everywhere"),
        ({"loss": lambda p, b: jnp.mean(p["w"].astype(jnp.int32) * b["x"][0, 0])}, "has a gradient of zero everywhere"),
        ({"optimizer": kept(None, np.ones(()))}, "optimizer is in the state after a step, and not after init"),
        ({"optimizer": kept(np.ones(()), None)}, "optimizer is in the state after init, and not after a step"),
        (
            {"optimizer": kept(np.ones((), jnp.float16), np.ones(()))},
            "optimizer is float16[] after init and float32[] after a step",
        ),
        ({"optimizer": kept([np.ones(2)], [np.ones(3)])}, "optimizer/0 is float32[2] after init and float32[3]"),
        ({"optimizer": kept(np.ones((), jnp.complex64), None)}, "optimizer is of dtype complex64"),
        ({"optimizer": kept(np.ones((), jnp.float8_e4m3fn), None)}, "optimizer is of dtype float8_e4m3fn"),
    ],
)
def test_what_is_refused(refusal: Callable[..., str], changes: dict[str, Any], said: str) -> None:
    assert said in refusal(UsageError, lambda: traced(**changes))


def test_numbers_and_arrays_of_numpy_are_parameters() -> None:
    text = traced(
        init=lambda key: {"w": np.ones((5, 3)), "scale": 2.0, "none": None},
        loss=lambda p, b: loss(p, b) * p["scale"],
    ).text
    assert 'tensor<5x3xf32> {sonew.donate, sonew.name = "params/w"' in text
    assert 'tensor<f32> {sonew.donate, sonew.name = "params/scale"' in text


class _Averages(NamedTuple):
    slow: jax.Array
    fast: jax.Array
    total: jax.Array
    lerp: jax.Array
    twice: jax.Array


def averages(slow: float, fast: float = 0.9, lerp: float = 0.1) -> Callable[[Any], optax.GradientTransformation]:
    def update(updates: Any, state: _Averages, params: Any = None) -> tuple[Any, _Averages]:
        def advance(g: jax.Array, s: _Averages) -> _Averages:
            return _Averages(
                slow=slow * s.slow + (1 - slow) * g,
                fast=(s.fast - g) * fast + g,
                total=s.total + g**2,
                lerp=s.lerp + lerp * (g - s.lerp),
                twice=0.999 * (0.9 * s.twice + g),
            )

        g = updates["w"]
        state = jax.lax.cond(jnp.isfinite(jnp.sum(g)), lambda: jax.jit(advance)(g, state), lambda: state)
        return updates, state

    return lambda rate: optax.GradientTransformation(
        lambda params: _Averages(*[jnp.zeros_like(params["w"])] * len(_Averages._fields)), update
    )


def test_factors_of_a_recurrence_are_read_from_the_arithmetic() -> None:
    params = jax.eval_shape(init, jax.random.key(0))
    tx = averages(0.5)(0.0)
    state = tx.init(params)
    steps = recurrences(jax.make_jaxpr(lambda g, s: tx.update(g, s)[1])(params, state))
    # Either branch may be taken, and one of them passes the value through.
    for index, factor in enumerate((0.5, 0.9, 1.0, 0.9, 0.8991)):
        assert sorted(steps[index].factors[1 + index]) == pytest.approx(sorted({factor, 1.0}), rel=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slow": 0.999}, "optimizer/slow decays by 0.999 a step;"),
        ({"slow": 0.5, "fast": 0.99609375}, "optimizer/fast decays by 0.996094 a step;"),
        ({"slow": 0.5, "lerp": 1e-3}, "optimizer/lerp decays by 0.999 a step;"),
    ],
)
def test_decays_that_bfloat16_rounds_away_are_refused(
    refusal: Callable[..., str], given: dict[str, float], said: str
) -> None:
    assert slowest_decay("bfloat16") == 1 - 2**-8
    assert slowest_decay("float16") == 1 - 2**-11
    message = refusal(UsageError, lambda: traced(optimizer=averages(**given), state_dtype="bfloat16"))
    assert message.startswith(said)
    assert "0.996094" in message
    assert "--precision bf16-mixed" in message
    traced(optimizer=averages(**given), state_dtype="float32")


@pytest.mark.parametrize(
    ("name", "given", "policy", "said"),
    [
        ("adam-8bit", {"b2": 0.999}, "bf16", "optimizer/0/nu/w/scales decays by 0.999 a step; this"),
        ("adam-8bit", {"b1": 0.997}, "bf16-sr", "optimizer/0/mu/w/scales decays by 0.997 a step; this"),
        ("adam-8bit", {"b2": 0.999}, "bf16-mixed", ""),
        # Codes that are rounded stochastically follow the average that they are made from.
        ("tridiag-sonew", {"state": "int8", "b1": 0.997, "b2": 0.999}, "bf16", ""),
        ("tridiag-sonew", {"state": "int8", "b2": 0.999}, "bf16-pure", "optimizer/0/bands/w/0/scales decays by 0.999"),
    ],
)
def test_decays_of_averages_in_8_bits_are_seen(
    refusal: Callable[..., str], name: str, given: dict[str, Any], policy: str, said: str
) -> None:
    chosen = precision_policy(policy)
    stored = {"state_dtype": chosen.state_dtype, "arithmetic": chosen.arithmetic}

    def trace(**changes: Any) -> Traced:
        settings = optimizer_settings(name, **{**given, **changes})
        names = {"runtime_settings": runtime_settings_of(name)} if changes else {}
        return traced(optimizer=optimizer_factory(settings), **stored, **names)

    if said:
        message = refusal(UsageError, trace)
        assert message.startswith(said)
        assert "give a smaller one, such as 0.99, or --precision bf16-mixed or f32" in message
        assert trace(b1=0.9, b2=0.9).setting_limits == {"b1": 0.99609375, "b2": 0.99609375}
    else:
        assert not trace().setting_limits


@pytest.mark.parametrize(("decay", "falls"), [(1 - 2**-8 + 2**-12, False), (1 - 2**-8 - 2**-12, True)])
def test_the_bound_of_decays_is_right(decay: float, falls: bool) -> None:
    number = np.float32(1.9375)
    for _ in range(5000):
        number = np.float32((number * np.float32(decay)).astype(ml_dtypes.bfloat16))
    assert (number < 1e-6) == falls
    assert falls or number > 1


# The optimizers whose b1 and b2 are decays of tensors of the state.
ELEMENTWISE = ("diag-sonew", "tridiag-sonew", "band-sonew", "momentum", "nesterov", "rmsprop", "adam", "adamw")


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("ons", "kbfgs", "natural-gradient")])
def test_what_ships_decays_fast_enough(name: str) -> None:
    settings = optimizer_settings(name)
    batch = {"x": jax.ShapeDtypeStruct((8, 6), jnp.float32)}

    def dense_loss(params: Any, batch: Any) -> jax.Array:
        return jnp.mean((jnp.tanh(batch["x"] @ params["w"]) @ params["v"]) ** 2)

    result = traced(
        init=lambda key: {"w": jax.random.normal(key, (6, 4)), "v": jax.random.normal(key, (4, 2))},
        loss=dense_loss,
        batch=batch,
        optimizer=optimizer_factory(settings, loss=dense_loss, batch=batch),
        runtime_settings=runtime_settings_of(name),
        state_dtype="bfloat16",
    )
    # locoprop's moments decay ten times in a step, so that even its b1 of 0.999 is no slow decay.
    slow = {"b1", "b2"} & set(runtime_settings_of(name)) if name in ELEMENTWISE else result.setting_limits.keys()
    assert result.setting_limits == dict.fromkeys(slow, 1 - 2**-8)
    assert name != "locoprop" or not slow


def test_a_runtime_setting_that_is_too_slow_is_refused(refusal: Callable[..., str], tiny_bundle: Path) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    manifest = type(manifest)(**{**manifest.__dict__, "setting_limits": {"b2": 0.99609375}, "precision": "bf16"})
    check_setting(manifest, "b2", 0.996)
    check_setting(manifest, "b1", 0.9999)
    message = refusal(UsageError, lambda: check_setting(manifest, "b2", 0.999))
    assert message.startswith("b2 is 0.999, and what --precision bf16 stores")


def test_a_setting_that_init_reads_is_no_runtime_setting(refusal: Callable[..., str]) -> None:
    def starts_from(rate: Any, eps: Any = 0.5) -> optax.GradientTransformation:
        return optax.GradientTransformation(lambda p: eps * jnp.ones(3), lambda g, s, p=None: (g, s))

    message = refusal(UsageError, lambda: traced(optimizer=starts_from, runtime_settings=("eps",)))
    assert message.startswith("eps cannot be a runtime setting: optimizer starts from it")


def loaded(path: Path, device: Device, optimizer: Any) -> Program:
    def start(key: jax.Array) -> Any:
        return {"w": jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)}

    compile_training(loss, start, optimizer, BATCH, output=path, learning_rate=0.25)
    return Program.load(open_bundle(path), device)


def doubled(rate: Any) -> optax.GradientTransformation:
    """Gradient descent at twice the rate, which it keeps in its state."""
    return optax.GradientTransformation(
        lambda p: {"twice": 2 * rate}, lambda g, s, p=None: (jax.tree.map(lambda x: -s["twice"] * x, g), s)
    )


@pytest.mark.parametrize(
    ("optimizer", "name", "factor"),
    [
        (lambda rate: optax.inject_hyperparams(optax.sgd)(rate), "optimizer/hyperparams/learning_rate", 1),
        (lambda rate: optax.apply_if_finite(optax.inject_hyperparams(optax.sgd)(rate), 3), None, 1),
        (doubled, "optimizer/twice", 2),
    ],
)
def test_a_rate_that_the_state_keeps_follows_the_schedule(
    tmp_path: Path, cpu: Device, optimizer: Any, name: str | None, factor: float
) -> None:
    program = loaded(tmp_path / "bundle", cpu, optimizer)
    assert [spec.name for spec in program.manifest.functions["init"].inputs] == ["seed"]
    state = TrainingState.initial(program, seed=0)
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    batch = program.upload_batch({"x": x})
    w = state.parameters()["params/w"].astype(float)
    for rate in (0.0, 0.5, 0.125):
        state.step(batch, program.device.upload(np.array(rate, np.float32)))
        w -= factor * rate * 2 / 24 * x.T.astype(float) @ (x @ w)
        np.testing.assert_allclose(state.parameters()["params/w"], w, rtol=1e-5, atol=1e-6)
        if name is not None:
            assert state.download()[name] == np.float32(factor * rate)


def test_a_state_that_starts_from_the_rate_starts_from_the_runs(tmp_path: Path, cpu: Device) -> None:
    program = loaded(tmp_path / "bundle", cpu, lambda rate: optax.rprop(rate))
    assert [spec.name for spec in program.manifest.functions["init"].inputs] == ["seed", "learning_rate"]
    size = next(spec.name for spec in program.manifest.state if "step_sizes" in spec.name)
    for given, first in ((None, 0.25), (0.0625, 0.0625)):
        state = TrainingState.initial(program, seed=0, learning_rate=given)
        np.testing.assert_array_equal(state.download()[size], np.full((5, 3), first, np.float32))
    before = state.parameters()["params/w"]
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    state.step(program.upload_batch({"x": x}), program.device.upload(np.array(0.0, np.float32)))
    state.step(program.upload_batch({"x": x}), program.device.upload(np.array(0.0, np.float32)))
    tx = optax.rprop(0.0625)
    params: Any = {"w": jnp.asarray(before)}
    kept_state = tx.init(params)
    for _ in range(2):
        updates, kept_state = tx.update(jax.grad(loss)(params, {"x": jnp.asarray(x)}), kept_state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(state.parameters()["params/w"], params["w"], rtol=1e-6, atol=1e-7)


CHANGED = (
    lambda: jax.enable_x64(True),
    lambda: jax.numpy_rank_promotion("raise"),
    lambda: jax.numpy_dtype_promotion("strict"),
    lambda: jax.disable_jit(),
    lambda: jax.threefry_partitionable(False),
    lambda: jax.default_prng_impl("rbg"),
    lambda: jax.debug_nans(True),
    lambda: jax.default_matmul_precision("highest"),
    lambda: jax.legacy_prng_key("error"),
)


@pytest.mark.parametrize("change", CHANGED)
def test_the_users_settings_of_jax_do_not_leak_into_the_trace(change: Callable[[], Any]) -> None:
    expected = traced().text
    with change():
        assert traced().text == expected


def test_settings_that_are_pinned_are_the_users_afterwards() -> None:
    jax.config.update("jax_random_seed_offset", 5)
    try:
        with pinned_settings():
            assert jax.config.values["jax_random_seed_offset"] == 0
        assert jax.config.values["jax_random_seed_offset"] == 5
        assert traced().text
    finally:
        jax.config.update("jax_random_seed_offset", 0)


def test_jax_with_a_platform_that_is_not_there_traces_the_same() -> None:
    """The process has JAX's environment variables for another machine."""
    code = "from test_requirements import traced; import sys; sys.stdout.write(traced().text)"
    environment = os.environ | {
        "JAX_PLATFORMS": "cuda",
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_JIT": "1",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_RANDOM_SEED_OFFSET": "3",
    }
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == traced().text
