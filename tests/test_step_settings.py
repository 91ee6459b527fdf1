"""Clipping, weight decay, frozen parameters and averaged weights, against optax and around every optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import StepSettings, UsageError, compile_training, load_weights, passes
from sonew_compiled.inference import export_inference
from sonew_compiled.lowering.lower import function_specs
from sonew_compiled.optimizer import optimizer_factory, with_step_settings
from sonew_compiled.presets import optimizer_settings, record_of
from sonew_compiled.runtime import (
    Bundle,
    Checkpoint,
    Device,
    Program,
    TrainingState,
    evaluate,
    load_trained,
    open_bundle,
    open_device,
    predict,
    save_checkpoint,
)
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.resuming import header_of
from sonew_compiled.runtime.stepper import stepper_of
from sonew_compiled.runtime.workers import Alone
from sonew_compiled.trace import trace_training

RATE, STEPS = 0.05, 5
SETTINGS = StepSettings(clip_value=0.02, clip_norm=0.03, decay=0.5, freeze=("encoder/*",), ema=0.9)
BATCH = {"x": jax.ShapeDtypeStruct((8, 5), jnp.float32)}


def init(key: jax.Array) -> Any:
    encoder, head = jax.random.split(key)
    return {
        "encoder": {"kernel": jax.random.normal(encoder, (5, 4)), "bias": jnp.full(4, 0.1)},
        "head": {"kernel": jax.random.normal(head, (4, 3)), "bias": jnp.full(3, 0.2)},
        "norm": {"matrix": jnp.full((2, 3), 0.5)},
    }


def predicted(params: Any, batch: Any) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["encoder"]["kernel"] + params["encoder"]["bias"])
    return (hidden @ params["head"]["kernel"] + params["head"]["bias"]) * params["norm"]["matrix"][0]


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((predicted(params, batch) - 3.0) ** 2)


MODEL: dict[str, Any] = {"init": init, "loss": loss, "batch": BATCH}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The model with everything, also in micro-batches, compared with JAX before it was written."""
    path = tmp_path_factory.mktemp("step") / "bundle"
    said: list[str] = []
    compile_training(
        **MODEL,
        optimizer=optimizer_settings("adam"),
        predict=predicted,
        learning_rate=RATE,
        step=SETTINGS,
        micro_batch=4,
        output=path,
        progress=said.append,
    )
    assert said[-1] == "check cpu against JAX"
    return open_bundle(path)


def batch(number: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(number).normal(size=(8, 5)).astype(np.float32)}


def by_optax() -> tuple[Any, Any]:
    """The parameters after the steps, and their average, as optax computes both."""
    params = init(jax.random.key(0))
    encoder, trained = params["encoder"], {name: params[name] for name in ("head", "norm")}
    tx = optax.chain(
        optax.clip(0.02),
        optax.clip_by_global_norm(0.03),
        optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-6),
        optax.add_decayed_weights(0.5, mask={"head": {"kernel": True, "bias": False}, "norm": {"matrix": True}}),
        optax.scale(-RATE),
    )
    average = optax.ema(0.9)

    @jax.jit
    def step(trained: Any, inner: Any, averaged: Any, given: Any) -> Any:
        gradients = jax.grad(lambda p: loss({"encoder": encoder, **p}, given))(trained)
        updates, inner = tx.update(gradients, inner, trained)
        trained = optax.apply_updates(trained, updates)
        mean, averaged = average.update(trained, averaged)
        return trained, inner, averaged, mean

    inner, averaged, mean = tx.init(trained), average.init(trained), trained
    for number in range(STEPS):
        trained, inner, averaged, mean = step(trained, inner, averaged, batch(number))
    return {"encoder": encoder, **trained}, {"encoder": encoder, **mean}


@pytest.mark.parametrize("in_parts", [False, True])
def test_steps_and_averages_are_those_of_optax(bundle: Bundle, cpu: Device, in_parts: bool) -> None:
    program = Program.load(bundle, cpu)
    state, rate = TrainingState.initial(program, seed=0), cpu.upload(np.array(RATE, np.float32))
    stepper = stepper_of(program, Alone())
    for number in range(STEPS):
        if in_parts:
            stepper.step(state, stepper.place(batch(number)), rate)
        else:
            state.step(program.upload_batch(batch(number)), rate)
    params, average = by_optax()
    got = state.download()
    for name in ("encoder/kernel", "encoder/bias", "head/kernel", "head/bias", "norm/matrix"):
        layer, leaf = name.split("/")
        np.testing.assert_allclose(got[f"params/{name}"], params[layer][leaf], rtol=2e-5, atol=1e-6)
        if layer != "encoder":
            np.testing.assert_allclose(got[f"average/weights/{name}"], average[layer][leaf], rtol=2e-5, atol=1e-6)
    assert abs(average["head"]["kernel"] - params["head"]["kernel"]).max() > 1e-2
    value = evaluate(program, state.buffers, batch(9))
    assert value == pytest.approx(float(loss(average, batch(9))), rel=1e-5)
    np.testing.assert_allclose(predict(program, state.buffers, batch(9)), predicted(average, batch(9)), rtol=1e-4)


def test_nothing_is_kept_or_computed_for_what_is_frozen(bundle: Bundle) -> None:
    functions = bundle.manifest.functions
    about = {spec.name for spec in bundle.manifest.state if "encoder" in spec.name}
    assert about == {"params/encoder/kernel", "params/encoder/bias"}
    # The bucket has the loss and the gradients of the other parameters alone: 3, 6 and 12 numbers, each from a multiple
    # of 16 on.
    assert functions["gradients"].outputs[0].shape == (3 * 16 + 12,)
    assert bundle.manifest.step == {
        "clip_value": 0.02,
        "clip_norm": 0.03,
        "decay": 0.5,
        "freeze": ["encoder/*"],
        "ema": 0.9,
    }


def test_patterns_with_spaces_stay_apart_and_a_resumed_run_has_the_same(bundle: Bundle) -> None:
    step = StepSettings(freeze=("the encoder/*", "head"), decay=0.1, no_decay=("a b",)).to_json()
    manifest = Manifest.from_json(dataclasses.replace(bundle.manifest, step=step).to_json(), source="a test")
    assert manifest.step == {"decay": 0.1, "no_decay": ["a b"], "freeze": ["the encoder/*", "head"]}
    compiled = header_of(bundle, data="", fingerprint="")["compiled"]
    assert compiled.endswith(
        "clip_norm 0.03, clip_value 0.02, decay 0.5, ema 0.9, freeze encoder/*, micro-batches of 4"
    )


def test_given_parameters_are_their_own_average(bundle: Bundle, cpu: Device) -> None:
    program = Program.load(bundle, cpu)
    first = TrainingState.initial(program, seed=3).parameters()
    state = TrainingState.initial(program, seed=0, parameters=first).download()
    np.testing.assert_array_equal(state["average/weights/head/kernel"], first["params/head/kernel"])
    assert state["average/count"] == 0


@pytest.fixture(scope="module")
def run(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """The folder of a checkpoint after two steps, and its tensors."""
    program, folder = Program.load(bundle, open_device("local-sync")), tmp_path_factory.mktemp("run")
    state = TrainingState.initial(program, seed=0)
    for number in range(2):
        state.step(batch(number), RATE)
    tensors = state.download()
    save_checkpoint(folder, Checkpoint(step=2, tensors=tensors, settings={"data": "mnist-10k"}), bundle.manifest)
    return folder, tensors


@pytest.mark.parametrize("raw", [False, True])
def test_the_weights_of_a_run_are_its_averages(
    bundle: Bundle, cpu: Device, run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path, raw: bool, sonew: Any
) -> None:
    folder, tensors = run
    root = "params" if raw else "average/weights"
    wanted = {f"head/{leaf}": tensors[f"{root}/head/{leaf}"] for leaf in ("kernel", "bias")}
    wanted["encoder/kernel"] = tensors["params/encoder/kernel"]
    shapes = jax.eval_shape(init, jax.random.key(0))
    as_trees = load_weights(folder, shapes, raw=raw)
    trained = load_trained(bundle, folder, raw=raw)
    words = ("--raw",) if raw else ()
    assert sonew("export", bundle.path, "--checkpoint", folder, "-o", tmp_path / "w.npz", *words).code == 0
    exported = dict(np.load(tmp_path / "w.npz"))
    assert exported.keys() == {"encoder/kernel", "encoder/bias", "head/kernel", "head/bias", "norm/matrix"}
    for name, array in wanted.items():
        layer, leaf = name.split("/")
        for found in (as_trees[layer][leaf], trained.arrays[f"params/{name}"], exported[name]):
            np.testing.assert_array_equal(found, array)
    program, examples = Program.load(bundle, cpu), batch(5)
    value = evaluate(program, trained.upload(program), examples)
    assert value == pytest.approx(float(loss(as_trees, examples)), rel=1e-5)
    from_file = load_trained(bundle, tmp_path / "w.npz")
    assert evaluate(program, from_file.upload(program), examples) == value


def test_a_bundle_for_inference_has_the_averages_as_its_parameters(
    bundle: Bundle, cpu: Device, run: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    folder, tensors = run
    manifest = export_inference(bundle, load_trained(bundle, folder).arrays, tmp_path / "infer.bundle")
    assert {spec.role for spec in manifest.state} == {"parameter"}
    exported = open_bundle(tmp_path / "infer.bundle")
    examples, program = batch(5), Program.load(exported, cpu)
    whole = Program.load(bundle, cpu)
    for raw in (False, True):
        alone = load_trained(exported, folder, raw=raw)
        together = load_trained(bundle, folder, raw=raw)
        value = evaluate(program, alone.upload(program), examples)
        assert value == pytest.approx(evaluate(whole, together.upload(whole), examples), rel=1e-6)
    own = load_trained(exported).arrays
    np.testing.assert_array_equal(own["params/head/kernel"], tensors["average/weights/head/kernel"])


def test_the_scale_of_a_loss_is_divided_out_before_clipping(tmp_path: Path, cpu: Device) -> None:
    """A loss that is linear in its parameters: its gradient is the mean of the batch, of the norm 5."""
    compile_training(
        lambda params, batch: jnp.mean(batch["x"] @ params["w"]),
        lambda key: {"w": jnp.ones(2)},
        lambda rate: optax.sgd(rate),
        {"x": jax.ShapeDtypeStruct((4, 2), jnp.float32)},
        output=tmp_path / "bundle",
        learning_rate=1.0,
        precision="f16-mixed",
        step=StepSettings(clip_norm=0.5),
        check=False,
    )
    program = Program.load(open_bundle(tmp_path / "bundle"), cpu)
    state = TrainingState.initial(program, seed=0)
    state.step({"x": np.tile(np.array([3.0, 4.0], np.float32), (4, 1))}, 1.0)
    np.testing.assert_allclose(state.parameters()["params/w"], [0.7, 0.6], atol=1e-3)


@pytest.mark.parametrize("precision", ["bf16-pure", "bf16-sr"])
def test_policies_keep_averages_in_float32(precision: str) -> None:
    policy = passes.precision_policy(precision)
    factory = with_step_settings(optax.sgd, SETTINGS, "sgd")
    module = passes.parse(trace_training(**MODEL, optimizer=factory, freeze=SETTINGS.freeze, ema=0.9).text)
    passes.run_pipeline(module, passes.pipeline(policy))
    state = {spec.name: spec.dtype for spec in function_specs(module)["init"].outputs}
    assert state["params/encoder/kernel"] == state["params/head/kernel"] == policy.parameter_dtype
    assert {dtype for name, dtype in state.items() if name.startswith("average/")} == {"float32"}
    evaluated = {spec.name for spec in function_specs(module)["eval_step"].inputs}
    assert {name for name in evaluated if not name.startswith("average/weights/")} == {
        "params/encoder/kernel",
        "params/encoder/bias",
        "batch/x",
    }


@pytest.mark.parametrize("name", ["adam", "tridiag-sonew", "muon", "natural-gradient"])
def test_an_optimizer_gets_clipped_gradients_and_its_parameters_decay(name: str) -> None:
    """What passes to the optimizer and what it gives are seen from within, so that its own rounding is none of it."""
    params = {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": jnp.ones(3)}
    gradients = jax.tree.map(lambda x: 5 * jnp.cos(x), params)
    looks_into = record_of(name).needs_loss
    factory = optimizer_factory(optimizer_settings(name), loss=mean_square, batch=BATCH)
    seen: list[Any] = []

    def watched(rate: Any) -> optax.GradientTransformation:
        def update(updates: Any, state: Any, params: Any) -> Any:
            seen.append((updates, jax.tree.map(jnp.sin, updates)))
            return seen[-1][1], state

        return factory(rate)._replace(update=update)

    wrapped = with_step_settings(watched, StepSettings(clip_norm=None if looks_into else 2.0, decay=0.3), name)(RATE)
    assert hasattr(wrapped, "backward") == looks_into
    got, _ = wrapped.update(gradients, None, params)
    norm = 2.0 if looks_into else sum(float(jnp.sum(g**2)) for g in gradients.values()) ** 0.5
    for key in params:
        given, made = (part[key] for part in seen[0])
        np.testing.assert_allclose(given, gradients[key] * (2.0 / norm), rtol=1e-6)
        decayed = RATE * 0.3 * params[key] if key == "kernel" else 0.0
        np.testing.assert_allclose(got[key], made - decayed, rtol=1e-6, atol=1e-7)


def test_averages_of_parameters_do_not_decay(refusal: Callable[..., str]) -> None:
    factory = optimizer_factory(optimizer_settings("schedule-free-adamw"))
    decaying = with_step_settings(factory, StepSettings(decay=0.3), "schedule-free-adamw")
    said = "the parameters of schedule-free-adamw are averages; give its own --weight-decay in place of --decay"
    assert refusal(UsageError, lambda: decaying(RATE)) == said


def mean_square(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch["x"] @ params["w"]) ** 2)


LOOKING: dict[str, Any] = {"init": lambda key: {"w": jnp.ones((5, 3)), "v": jnp.ones(2)}, "loss": mean_square}


@pytest.mark.parametrize(
    ("optimizer", "step", "said"),
    [
        ("adam", {"freeze": ("decoder/*",)}, "--freeze 'decoder/*' matches no parameter; give a pattern of v, w"),
        ("adam", {"freeze": ("*",)}, "no parameter is left to train: all are frozen"),
        (
            "adam",
            {"decay": 0.1, "no_decay": ("bias",)},
            "--no-decay 'bias' matches no parameter; give a pattern of v, w",
        ),
        ("natural-gradient", {"clip_norm": 1.0}, "natural-gradient takes more than gradients, which alone can be"),
        ("natural-gradient", {"clip_value": 1.0}, "leave out --clip-value"),
        ("natural-gradient", {"freeze": ("v",)}, "a backward pass of its own, for all parameters, and v are integers"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, refusal: Callable[..., str], optimizer: str, step: dict[str, Any], said: str
) -> None:
    given = LOOKING | {"optimizer": optimizer_settings(optimizer), "batch": BATCH, "output": tmp_path / "bundle"}
    assert said in refusal(UsageError, lambda: compile_training(**given, step=StepSettings(**step)))


def test_an_average_that_could_not_follow_is_refused(refusal: Callable[..., str]) -> None:
    given = MODEL | {"optimizer": optax.sgd, "arithmetic": "bfloat16"}
    assert "--ema is 0.999; this precision computes in bfloat16, where averages" in refusal(
        UsageError, lambda: trace_training(**given, ema=0.999)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"clip_norm": 0.0}, "--clip-norm is 0.0; give a positive number of float32, such as 1.0"),
        ({"ema": 1.0}, "--ema is 1.0; give a decay in (0, 1), such as 0.999"),
        ({"decay": -1.0}, "--decay is -1.0; give zero or a positive number"),
        ({"no_decay": ("*/bias",)}, "--no-decay is given without --decay"),
        ({"freeze": "encoder/*"}, "freeze is 'encoder/*'; give a sequence of patterns"),
    ],
)
def test_values_out_of_range_are_refused(refusal: Callable[..., str], given: dict[str, Any], said: str) -> None:
    assert said in refusal(UsageError, lambda: StepSettings(**given))


def test_the_command_line_has_the_same_settings(sonew: Callable[..., Any], tmp_path: Path) -> None:
    made = sonew("compile", "--freeze", "nothing/*", "--clip-norm", 1, "--ema", 0.9, "-o", tmp_path / "bundle")
    assert made.code == 2
    assert "--freeze 'nothing/*' matches no parameter; give a pattern of " in made.err
    made = sonew("compile", "--clip-norm", 0, "-o", tmp_path / "bundle")
    assert made.code == 2
    assert "give a positive number of float32, such as 1.0" in made.err
