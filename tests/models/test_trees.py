"""Parameters and batches in any tree: tuples, dataclasses, None, 16-bit leaves, and integers that are held."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sonew_compiled import UsageError, compile_training, passes
from sonew_compiled.bench._plain import check_plain
from sonew_compiled.lowering.lower import function_specs
from sonew_compiled.models import Model
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle
from sonew_compiled.trace import trace_training

RATE = 0.05


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: jax.Array
    bias: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Pair:
    x: Any
    shift: Any


def init(key: jax.Array) -> Any:
    """A permutation and a mask, as in a flow of couplings, beside layers of which one has no bias."""
    first, second = jax.random.split(key)
    return (
        Layer(0.4 * jax.random.normal(first, (6, 4)), None),
        {"permutation": jnp.array([3, 1, 0, 2]), "mask": jnp.array([True, False, True, True]), "none": None},
        Layer(jax.random.normal(second, (4, 2)).astype("bfloat16"), jnp.zeros(2, "float16")),
    )


def loss(params: Any, batch: Any) -> jax.Array:
    first, fixed, second = params
    hidden = jnp.tanh(batch[0].x @ first.kernel + batch[0].shift[:, None])[:, fixed["permutation"]]
    hidden = jnp.where(fixed["mask"], hidden, 0.0)
    return jnp.mean((hidden @ second.kernel.astype(jnp.float32) + second.bias.astype(jnp.float32) - batch[1]) ** 2)


BATCH = (
    Pair(jax.ShapeDtypeStruct((8, 6), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.float32)),
    jax.ShapeDtypeStruct((8, 2), jnp.float32),
)
TRACED: dict[str, Any] = {"init": init, "loss": loss, "optimizer": optax.adam, "batch": BATCH}


def test_any_tree_trains_as_in_jax_and_what_is_no_float_is_held(tmp_path: Path, cpu: Device) -> None:
    steps: list[str] = []
    compile_training(**TRACED, learning_rate=RATE, output=tmp_path / "bundle", progress=steps.append)
    assert steps[-1] == "check cpu against JAX"
    program = Program.load(open_bundle(tmp_path / "bundle"), cpu)
    assert {spec.name for spec in program.manifest.state if spec.name.startswith("optimizer/0/mu")} == {
        f"optimizer/0/mu/{name}" for name in ("0/kernel", "2/kernel", "2/bias")
    }
    rng = np.random.default_rng(0)
    fields = {"0/x": rng.normal(size=(8, 6)), "0/shift": rng.normal(size=8), "1": rng.normal(size=(8, 2))}
    fields = {name: array.astype(np.float32) for name, array in fields.items()}
    state = TrainingState.initial(program, seed=0)
    for _ in range(3):
        state.step(program.upload_batch(fields), cpu.upload(np.array(RATE, np.float32)))

    params = init(jax.random.key(0))
    floats = (params[0], None, params[2])
    tx = optax.adam(RATE)
    inner = tx.init(floats)
    given = (Pair(fields["0/x"], fields["0/shift"]), fields["1"])
    for _ in range(3):
        gradients = jax.grad(lambda p: loss((p[0], params[1], p[2]), given))(floats)
        updates, inner = tx.update(gradients, inner, floats)
        floats = optax.apply_updates(floats, updates)
    got = state.parameters()
    for path, want in (
        ("0/kernel", floats[0].kernel),
        ("1/mask", params[1]["mask"]),
        ("1/permutation", params[1]["permutation"]),
        ("2/bias", floats[2].bias),
        ("2/kernel", floats[2].kernel),
    ):
        array = got.pop(f"params/{path}")
        assert array.dtype == want.dtype
        within = {"float32": 1e-5, "float16": 2.0**-10, "bfloat16": 2.0**-7}.get(str(want.dtype), 0.0)
        np.testing.assert_allclose(array.astype(np.float32), want.astype(np.float32), rtol=within, atol=within)
    assert not got


@pytest.mark.parametrize("precision", ["bf16", "bf16-pure", "f16-mixed", "bf16-sr"])
def test_what_is_held_keeps_its_dtype_under_every_policy(precision: str) -> None:
    module = passes.parse(trace_training(**TRACED).text)
    passes.run_pipeline(module, passes.pipeline(passes.precision_policy(precision)))
    kept = {spec.name: spec.dtype for spec in function_specs(module)["init"].outputs if "params/1/" in spec.name}
    assert kept == {"params/1/mask": "bool", "params/1/permutation": "int32"}


def plain(params: Any, batch: Any) -> jax.Array:
    return jnp.mean((batch["x"] @ params["w"]) ** 2) * params["n"]


PLAIN: dict[str, Any] = {
    "init": lambda key: {"w": jax.random.normal(key, (6, 4)), "n": 2},
    "loss": plain,
    "batch": {"x": BATCH[0].x},
}


def keeping(params: Any, batch: Any, *, state: Any) -> Any:
    return plain(params, batch), collections.OrderedDict(b=state["b"] + 1, a=state["a"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"init": lambda key: {"w": jnp.ones((6, 4), int), "n": 2}}, "no parameter is left to train: all are integers"),
        ({"optimizer": optimizer_settings("kfac")}, "backward pass of its own, for all parameters, and n are integers"),
        (
            {"loss": keeping, "init": lambda key: (PLAIN["init"](key), {"a": 0, "b": 0})},
            "loss takes state, and evaluation would call it with one example at a time",
        ),
        (
            {"loss": keeping, "init": lambda key: (PLAIN["init"](key), {"a": 0, "b": 0}), "per_example": False},
            "state/b is in the place of state/a in the state after a step; ",
        ),
        ({"batch": (BATCH[0].x, jax.ShapeDtypeStruct((4,), jnp.float32))}, "every field needs the batch size"),
    ],
)
def test_what_would_be_misunderstood_is_refused(
    tmp_path: Path, refusal: Callable[..., str], changes: dict[str, Any], said: str
) -> None:
    given = PLAIN | {"optimizer": optax.adam, "learning_rate": RATE} | changes
    assert said in refusal(UsageError, lambda: compile_training(**given, output=tmp_path / "bundle"))


def test_bench_needs_parameters_that_all_have_gradients(refusal: Callable[..., str]) -> None:
    model = Model(init=PLAIN["init"], loss=plain, batch=lambda size: PLAIN["batch"])
    assert "some of this model's are integers" in refusal(UsageError, lambda: check_plain(model))


def test_a_loss_that_is_no_mean_over_examples_is_said(tmp_path: Path) -> None:
    """As with statistics of the batch, which one example does not have."""

    def standardized(params: Any, batch: Any) -> jax.Array:
        y = batch["x"] @ params["w"]
        return jnp.mean((y - y.mean(0)) ** 2)

    said: list[str] = []
    given = PLAIN | {"loss": standardized, "optimizer": optax.sgd, "learning_rate": RATE}
    compile_training(**given, output=tmp_path / "bundle", progress=said.append)
    (note,) = [line for line in said if line.startswith("note: ")]
    assert "is not the mean of those of its examples, 0, which evaluation reports; give the model an eval_loss" in note
