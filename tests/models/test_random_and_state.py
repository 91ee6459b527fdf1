"""Losses that draw and keep a state: the very keys, JAX's numbers, resumed bit for bit, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import SonewError, UsageError, compile_training, passes
from sonew_compiled import compile as compile_module
from sonew_compiled.bench._plain import check_plain
from sonew_compiled.lowering.lower import function_specs
from sonew_compiled.model_functions import evaluation_key, step_key
from sonew_compiled.models import classifier
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Program,
    TrainingState,
    TrainSettings,
    bind,
    evaluate,
    load_checkpoint,
    open_bundle,
    open_device,
    predict,
    resumed_settings,
    train,
)
from sonew_compiled.trace import trace_training

SEED, RATE = 5, 0.05
BATCH = {"x": jax.ShapeDtypeStruct((8, 6), jnp.float32)}


def init(key: jax.Array) -> Any:
    params = {"w": 0.3 * jax.random.normal(key, (6, 4)), "b": jnp.zeros(4)}
    return params, {
        "mean": jnp.ones(4),
        "steps": 0,
        "drawn": jnp.zeros(3, jnp.uint32),
        "half": jnp.zeros(2, "bfloat16"),
    }


def layer(params: Any, batch: Any) -> jax.Array:
    return batch["x"] @ params["w"] + params["b"]


def loss(params: Any, batch: Any, *, rng: jax.Array, state: Any) -> Any:
    """Dropout, and an average of the batch's means; the state keeps what the key draws."""
    y = layer(params, batch)
    dropout, other = jax.random.split(rng)
    kept = jax.random.bernoulli(dropout, 0.5, y.shape)
    mean = y.mean(0)
    after = {
        "mean": 0.9 * state["mean"] + 0.1 * mean,
        "steps": state["steps"] + 1,
        "drawn": jax.random.bits(other, (3,)),
        "half": state["half"] + mean[:2].astype("bfloat16"),
    }
    return jnp.mean(jnp.where(kept, y - mean, 0) ** 2 + (y - 1) ** 2), after


def eval_loss(params: Any, batch: Any, *, state: Any) -> jax.Array:
    return jnp.mean((layer(params, batch) - state["mean"]) ** 2)


def predictions(params: Any, batch: Any, *, state: Any) -> jax.Array:
    return layer(params, batch) - state["mean"]


def adam(rate: Any) -> optax.GradientTransformation:
    return optax.adam(rate)


MODEL: dict[str, Any] = {"init": init, "loss": loss, "eval_loss": eval_loss, "predict": predictions}
GIVEN: dict[str, Any] = MODEL | {"optimizer": adam, "batch": BATCH, "learning_rate": RATE, "schedule": "constant"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The same model for native code and for bytecode, each compared with JAX before it is written."""
    found = {}
    for target in ("cpu", "vmvx"):
        path = tmp_path_factory.mktemp("drawing") / target
        steps: list[str] = []
        compile_training(**GIVEN, targets=(target,), output=path, progress=steps.append)
        assert steps[-1] == f"check {target} against JAX"
        found[target] = open_bundle(path)
    return found


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Four batches to train on, and one and a half to test on."""
    x = np.random.default_rng(0).normal(size=(44, 6)).astype(np.float32)
    return Dataset(name="drawing", train={"x": x[:32]}, test={"x": x[32:]}, fingerprint="0" * 16)


@functools.cache
def by_jax(steps: int) -> tuple[Any, Any]:
    """The parameters and the state after steps on batches of one number."""
    params, state = init(jax.random.key(SEED))
    tx = adam(RATE)
    inner = tx.init(params)

    @jax.jit
    def step(params: Any, inner: Any, state: Any, number: Any) -> Any:
        keyed = functools.partial(loss, rng=step_key(SEED, number), state=state)
        gradients, state = jax.grad(keyed, has_aux=True)(params, jax.tree.map(jnp.asarray, batch(0)))
        updates, inner = tx.update(gradients, inner, params)
        return optax.apply_updates(params, updates), inner, state

    for number in range(steps):
        params, inner, state = step(params, inner, state, number)
    return params, state


def batch(number: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(number).normal(size=(8, 6)).astype(np.float32)}


def started(bundle: Bundle) -> tuple[Program, TrainingState, Any]:
    program = Program.load(bundle, open_device("local-task"))
    state = TrainingState.initial(program, seed=SEED)
    return program, state, program.device.upload(np.array(RATE, np.float32))


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_steps_draw_what_jax_draws(bundles: dict[str, Bundle], target: str) -> None:
    program, state, rate = started(bundles[target])
    for number in range(4):
        state.step(program.upload_batch(batch(0)), rate)
        params, kept = by_jax(number + 1)
        got = state.download()
        np.testing.assert_array_equal(got["state/drawn"], kept["drawn"])
        assert got["state/steps"] == got["random/step"] == number + 1
        for name in ("w", "b"):
            np.testing.assert_allclose(got[f"params/{name}"], params[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got["state/mean"], kept["mean"], rtol=1e-5)
        np.testing.assert_allclose(
            got["state/half"].astype(np.float32), kept["half"].astype(np.float32), rtol=2.0**-7, atol=2.0**-8
        )


def test_evaluation_changes_no_draw_and_reads_the_state(bundles: dict[str, Bundle], data: Dataset) -> None:
    ends = []
    for looks in (False, True):
        program, state, rate = started(bundles["cpu"])
        bound = bind(data.test, program.manifest.batch)
        for _ in range(3):
            state.step(program.upload_batch(batch(0)), rate)
            if looks:
                value = evaluate(program, state.buffers, bound)
                given = predict(program, state.buffers, batch(3))
        ends.append(state.download())
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])
    params, kept = by_jax(3)
    assert value == pytest.approx(float(eval_loss(params, data.test, state=kept)), rel=1e-5)
    np.testing.assert_allclose(given, predictions(params, batch(3), state=kept), rtol=1e-4, atol=1e-5)


def test_a_resumed_run_goes_on_with_the_same_keys(bundles: dict[str, Bundle], data: Dataset, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=2, learning_rate=RATE, schedule="constant", seed=SEED)
    device = open_device("local-task")
    whole = train(bundles["cpu"], data, settings, device, output=tmp_path / "whole")
    stopped = dataclasses.replace(settings, max_steps=5)
    train(bundles["cpu"], data, stopped, device, output=tmp_path / "part")
    again = resumed_settings(tmp_path / "part")
    end = train(bundles["cpu"], data, again, device, output=tmp_path / "part", resume=tmp_path / "part")
    assert end.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    assert (end.train_loss, end.test_loss) == (whole.train_loss, whole.test_loss)
    tensors = load_checkpoint(end.checkpoint, bundles["cpu"].manifest).tensors
    expected = jax.random.bits(jax.random.split(step_key(SEED, 7))[1], (3,))
    np.testing.assert_array_equal(tensors["state/drawn"], expected)
    assert (tensors["random/seed"], tensors["random/step"], tensors["state/steps"]) == (SEED, 8, 8)


def test_no_key_is_another() -> None:
    """The keys of steps, of `init` with its splits and folds, and of evaluation are all different."""
    steps = jax.vmap(jax.vmap(step_key, (None, 0)), (0, None))(jnp.arange(8), jnp.arange(100))
    firsts = jax.vmap(jax.random.key)(jnp.arange(8))
    folded = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(firsts, jnp.arange(100))
    evaluated = jax.vmap(functools.partial(jax.random.fold_in, evaluation_key()))(jnp.arange(100))
    words = [jax.random.key_data(keys).reshape(-1, 2) for keys in (steps, firsts, folded, evaluated)]
    assert len(np.unique(np.concatenate(words), axis=0)) == 800 + 8 + 800 + 100


@pytest.mark.parametrize("precision", ["bf16", "bf16-pure", "bf16-mixed", "f16-mixed", "bf16-sr"])
def test_the_state_keeps_its_dtypes_under_every_policy(precision: str) -> None:
    policy = passes.precision_policy(precision)
    text = trace_training(**MODEL, optimizer=lambda rate: optax.sgd(rate, momentum=0.9), batch=BATCH).text
    module = passes.parse(text)
    passes.run_pipeline(module, passes.pipeline(policy))
    state = {spec.name: spec.dtype for spec in function_specs(module)["init"].outputs}
    assert state["params/w"] == policy.parameter_dtype
    kept = {name: dtype for name, dtype in state.items() if name.startswith(("state/", "random/"))}
    assert kept == {
        "state/mean": "float32",
        "state/steps": "int32",
        "state/drawn": "uint32",
        "state/half": "bfloat16",
        "random/seed": "int32",
        "random/step": "int32",
    }


def test_evaluation_may_draw_by_a_key_of_each_example() -> None:
    def noisy(params: Any, batch: Any, *, rng: jax.Array) -> jax.Array:
        return jnp.mean((layer(params, batch) + jax.random.normal(rng, (1, 4))) ** 2)

    given = {"init": lambda key: init(key)[0], "loss": noisy, "optimizer": adam, "batch": BATCH}
    evaluated = trace_training(**given, evaluation_draws=True).references["eval_step"]
    params, _ = init(jax.random.key(0))
    (losses,) = jax.tree.leaves(evaluated.compile()(params["b"], params["w"], batch(1)["x"]))
    for number, x in enumerate(batch(1)["x"]):
        expected = noisy(params, {"x": x[None]}, rng=jax.random.fold_in(evaluation_key(), number))
        assert float(losses[number]) == pytest.approx(float(expected), rel=1e-5)


def test_a_wrong_state_is_found(tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def other(params: Any, batch: Any, **given: Any) -> Any:
        value, after = loss(params, batch, **given)
        return value, after | {"mean": 1.001 * after["mean"]}

    def wrong(params: Any, batch: Any, *, rng: jax.Array, state: Any) -> Any:
        return other(params, batch, rng=rng, state=state)

    def trace(**given: Any) -> Any:
        return dataclasses.replace(trace_training(**given), text=trace_training(**given | {"loss": wrong}).text)

    monkeypatch.setattr(compile_module, "trace_training", trace)
    message = refusal(SonewError, lambda: compile_training(**GIVEN, output=tmp_path / "bundle"))
    assert message.startswith("the executable for cpu computes train_step wrongly: state/mean differs from JAX's in 4")


def plain(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(layer(params, batch) ** 2)


def drawing(params: Any, batch: Any, *, rng: jax.Array) -> jax.Array:
    return plain(params, batch) + jax.random.normal(rng)


def keeping(change: Callable[[Any], Any], params: Any, batch: Any, *, state: Any) -> Any:
    return plain(params, batch), change(state)


def careless(params: Any, batch: Any, *, state: Any) -> Any:
    return plain(params, batch)


def training(params: Any, batch: Any, *, training: bool) -> Any:
    return plain(params, batch)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"eval_loss": None},
            "loss takes rng, and evaluation draws nothing; give the model an eval_loss(params, batch)",
        ),
        ({"loss": drawing, "eval_loss": drawing, "predict": None}, "eval_loss takes rng, and evaluation draws nothing"),
        ({"loss": plain}, "eval_loss takes state and loss does not; let loss take it and return (loss, state)"),
        ({"loss": training}, "loss takes the keyword training; it may take rng and state: give the others a default"),
        ({"init": lambda key: init(key)[0]}, "loss takes state, and init gives no (params, state)"),
        ({"loss": careless}, "loss takes state and does not return (loss, state)"),
        (
            {"loss": functools.partial(keeping, lambda state: state | {"mean": state["mean"][:3]})},
            "state/mean is float32[4] after init and float32[3] after a step",
        ),
        (
            {"loss": functools.partial(keeping, lambda state: {"mean": state["mean"]})},
            "is in the state after init, and not after a step",
        ),
        ({"init": lambda key: (init(key)[0], {"name": "mlp"})}, "'state/name' is of type str"),
        ({"optimizer": optimizer_settings("kfac")}, "kfac differentiates the loss itself, which takes state"),
        ({"micro_batch": 4}, "the loss takes state, which micro-batches cannot share; leave out --micro-batch"),
    ],
)
def test_what_is_no_such_model_is_refused(
    tmp_path: Path, refusal: Callable[..., str], changes: dict[str, Any], said: str
) -> None:
    assert said in refusal(UsageError, lambda: compile_training(**GIVEN | changes, output=tmp_path / "bundle"))


def test_bench_compares_plain_losses_alone(refusal: Callable[..., str]) -> None:
    check_plain(classifier)
    for changes in ({"loss": drawing, "eval_loss": plain}, {"eval_loss": plain}, {"per_example": False}):
        model = dataclasses.replace(classifier, **changes)
        said = refusal(UsageError, functools.partial(check_plain, model))
        assert said.startswith("sonew bench compares losses of parameters and a batch alone")


def test_averages_too_slow_for_the_arithmetic_are_refused(refusal: Callable[..., str]) -> None:
    def slow(params: Any, batch: Any, *, state: Any) -> Any:
        return plain(params, batch), state | {"mean": 0.999 * state["mean"] + 0.001 * layer(params, batch).mean(0)}

    given: dict[str, Any] = {"init": init, "loss": slow, "eval_loss": eval_loss, "optimizer": adam, "batch": BATCH}
    assert "state/mean decays by 0.999 a step; this precision computes it in bfloat16, where" in refusal(
        UsageError, lambda: trace_training(**given, arithmetic="bfloat16")
    )
    trace_training(**given)


def test_a_default_key_is_not_given_in_evaluation() -> None:
    """`rng=None` says that a loss can do without; a key that is bound is the user's own."""

    def optional(params: Any, batch: Any, *, rng: jax.Array | None = None) -> jax.Array:
        value = plain(params, batch)
        return value if rng is None else value + jax.random.normal(rng)

    given: dict[str, Any] = {"init": lambda key: init(key)[0], "optimizer": adam, "batch": BATCH}
    traced = trace_training(**given, loss=optional)
    assert "random/step" in traced.text
    params, _ = init(jax.random.key(0))
    (losses,) = jax.tree.leaves(traced.references["eval_step"].compile()(params["b"], params["w"], batch(1)["x"]))
    np.testing.assert_allclose(losses, jnp.mean(layer(params, batch(1)) ** 2, axis=1), rtol=1e-5)
    bound = trace_training(**given, loss=functools.partial(drawing, rng=jax.random.key(3)))
    assert "random/step" not in bound.text
