"""The check before a bundle is written: it finds wrong results of any kind, and accepts differences by rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import sonew_compiled.compile as compile_module
from sonew_compiled.check import Call, Reference, check_executable, why_not_checked
from sonew_compiled.check._compare import difference, movement
from sonew_compiled.compile import compile_training
from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import Program, open_bundle
from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TargetSpec, TensorSpec
from sonew_compiled.trace import trace_training

pytestmark = pytest.mark.usefixtures("compiled_once")

BATCH = {
    "x": jax.ShapeDtypeStruct((8, 5), jnp.float32),
    "label": jax.ShapeDtypeStruct((8,), jnp.int32),
}


def init(key: jax.Array) -> Any:
    return {"w": jax.random.normal(key, (5, 3)), "b": jnp.zeros(3)}


def predict(params: Any, batch: Any) -> jax.Array:
    return batch["x"] @ params["w"] + params["b"]


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(predict(params, batch), batch["label"]))


MODEL: dict[str, Any] = {"loss": loss, "init": init, "batch": BATCH, "predict": predict}
GIVEN: dict[str, Any] = MODEL | {"optimizer": optimizer_settings("adam"), "classes": {"label": 3}}


def test_what_is_right_is_written(tmp_path: Path) -> None:
    steps: list[str] = []
    compile_training(**GIVEN, output=tmp_path / "bundle", targets=("cpu", "vmvx"), progress=steps.append)
    assert steps[-2:] == ["check cpu against JAX", "check vmvx against JAX"]
    open_bundle(tmp_path / "bundle").verify()


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("tridiag-sonew", "bf16-sr"), ("adam", "f16-mixed"), ("muon", "bf16-pure")]
)
def test_low_precision_is_compared_with_what_the_policy_computes(
    tmp_path: Path, optimizer: str, precision: str
) -> None:
    steps: list[str] = []
    settings = optimizer_settings(optimizer, precision=precision)
    compile_training(
        **GIVEN | {"optimizer": settings}, output=tmp_path / "bundle", precision=precision, progress=steps.append
    )
    assert steps[-1] == "check cpu against JAX"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": lambda p, b: 1.001 * loss(p, b)}, "computes train_step wrongly: "),
        (
            {"predict": lambda p, b: 1.001 * predict(p, b)},
            "computes predict wrongly: prediction differs from JAX's in ",
        ),
        ({"init": lambda key: {**init(key), "b": jnp.full(3, 1e-3)}}, "computes init wrongly: params/b differs"),
        # One of eight examples is lost.
        (
            {"loss": lambda p, b: loss(p, jax.tree.map(lambda x: x[:7], b))},
            "computes train_step wrongly",
        ),
    ],
)
def test_what_is_wrong_is_not_written(
    tmp_path: Path,
    refusal: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    said: str,
) -> None:
    """The compiled module differs from the one that JAX runs."""

    def trace(**given: Any) -> Any:
        return dataclasses.replace(trace_training(**given), text=trace_training(**given | changes).text)

    monkeypatch.setattr(compile_module, "trace_training", trace)
    dump = tmp_path / "dump"
    message = refusal(SonewError, lambda: compile_training(**GIVEN, output=tmp_path / "bundle", dump_check=dump))
    assert message.startswith(f"the executable for cpu {said}")
    assert str(dump) in message
    assert not (tmp_path / "bundle").exists()
    (function,) = {path.name.partition("-")[0] for path in dump.glob("*.npz")}
    inputs, results, expected = (np.load(dump / f"{function}-{part}.npz") for part in ("inputs", "results", "expected"))
    assert sorted(results) == sorted(expected)
    assert any(not np.allclose(results[name], expected[name], rtol=1e-4) for name in results)
    if function == "predict":
        wanted = inputs["batch.x"] @ inputs["params.w"] + inputs["params.b"]
        np.testing.assert_allclose(expected["prediction"], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(results["prediction"], 1.001 * wanted, rtol=1e-5, atol=1e-6)
    compile_training(**GIVEN, output=tmp_path / "bundle", check=False)
    assert (tmp_path / "bundle" / "cpu.vmfb").exists()


# `eval_step` doubles the parameters in their own buffers.
DAMAGE = """
module @damage {
  func.func public @eval_step(%w: tensor<4xf32> {iree.abi.output = 0 : index}) -> tensor<4xf32> {
    %0 = stablehlo.add %w, %w : tensor<4xf32>
    return %0 : tensor<4xf32>
  }
}
"""
TARGET = TargetSpec(name="cpu", file="cpu.vmfb", driver="local")


@pytest.fixture(scope="module")
def damage() -> tuple[bytes, Manifest, list[Call]]:
    from iree.compiler import compile_str

    flags = ["--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=vmvx"]
    executable = compile_str(DAMAGE, input_type="stablehlo", extra_args=flags)
    w = TensorSpec(name="params", shape=(4,), dtype="float32", role=Role.PARAMETER)
    x = TensorSpec(name="batch", shape=(4,), dtype="float32", role=Role.BATCH)
    rate, scalar = (
        TensorSpec(name=role, shape=(), dtype="float32", role=role) for role in (Role.LEARNING_RATE, Role.LOSS)
    )
    function = FunctionSpec(
        inputs=(w,), outputs=(TensorSpec(name="losses", shape=(4,), dtype="float32", role=Role.LOSS),)
    )
    manifest = Manifest(
        model="damage",
        optimizer={"name": "none"},
        defaults={"learning_rate": 0.1, "schedule": "constant"},
        versions={},
        functions={
            "init": FunctionSpec(inputs=(), outputs=(w,)),
            "train_step": FunctionSpec(inputs=(w, x, rate), outputs=(w, scalar)),
            "eval_step": function,
        },
        targets=(),
    )
    values = np.arange(4, dtype=np.float32)
    call = Call(
        function="eval_step",
        inputs={"params": values},
        results={"losses": 2 * values},
        again=lambda inputs: {"losses": 2 * inputs["params"]},
    )
    return bytes(executable), manifest, [call]


@pytest.fixture
def only_eval_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the runtime look up no function that the damaging module lacks."""
    from sonew_compiled.runtime import program

    found = program._lookup

    def lookup(bundle: Any, target: Any, module: Any, name: str, spec: Any) -> Any:
        return found(bundle, target, module, "eval_step", spec)

    monkeypatch.setattr(program, "_lookup", lookup)


@pytest.mark.usefixtures("only_eval_step")
def test_an_input_that_is_overwritten_is_found(
    damage: tuple[bytes, Manifest, list[Call]], refusal: Callable[..., str]
) -> None:
    executable, manifest, calls = damage
    message = refusal(SonewError, lambda: check_executable(executable, TARGET, manifest, calls))
    assert "computes eval_step wrongly: it changes params, which it has to leave as it is" in message


@pytest.mark.usefixtures("only_eval_step")
def test_results_that_differ_from_call_to_call_are_found(
    damage: tuple[bytes, Manifest, list[Call]], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    executable, manifest, calls = damage
    download = Program.download
    count = iter(range(100))

    def unsteady(program: Program, spec: TensorSpec, buffer: Any) -> np.ndarray:
        # A difference in the last place, which is within every tolerance.
        got = download(program, spec, buffer)
        if spec.name != "losses":
            return calls[0].inputs["params"]
        return np.nextafter(got, np.float32(9)) if next(count) == 1 else got

    monkeypatch.setattr(Program, "download", unsteady)
    message = refusal(SonewError, lambda: check_executable(executable, TARGET, manifest, calls))
    assert "computes eval_step wrongly: losses is not the same in two calls with the same inputs" in message


@pytest.mark.parametrize(
    ("target", "first", "said"),
    [
        (TARGET, True, ""),
        (TARGET, False, "the second that this machine runs"),
        (dataclasses.replace(TARGET, driver="cuda"), True, "does not run code for cuda"),
        (dataclasses.replace(TARGET, driver="tpu"), True, "does not run code for tpu"),
        (dataclasses.replace(TARGET, machine="riscv64"), True, "its code is for riscv64"),
    ],
)
def test_what_is_not_checked_is_said(
    damage: tuple[bytes, Manifest, list[Call]], target: TargetSpec, first: bool, said: str
) -> None:
    manifest = damage[1]
    large = TensorSpec(name="params", shape=(4000, 4000), dtype="float32", role=Role.PARAMETER)
    functions = {**manifest.functions, "init": FunctionSpec(inputs=(), outputs=(large,))}
    reason = why_not_checked(target, dataclasses.replace(manifest, functions=functions), first=first)
    assert said in reason
    assert bool(said) == bool(reason)


def reference(**changes: Any) -> Reference:
    """JAX's account of the model under plain gradient descent."""
    traced = trace_training(**MODEL | {"optimizer": lambda rate: optax.sgd(rate)} | changes)
    scalar = TensorSpec(name="learning_rate", shape=(), dtype="float32", role=Role.LEARNING_RATE)
    params = tuple(
        TensorSpec(name=f"params/{name}", shape=shape, dtype="float32", role=Role.PARAMETER)
        for name, shape in (("b", (3,)), ("w", (5, 3)))
    )
    fields = (
        TensorSpec(name="batch/label", shape=(8,), dtype="int32", role=Role.BATCH),
        TensorSpec(name="batch/x", shape=(8, 5), dtype="float32", role=Role.BATCH),
    )
    manifest = Manifest(
        model="m",
        optimizer={"name": "sgd"},
        defaults={"learning_rate": 0.5},
        versions={},
        functions={
            "init": FunctionSpec(
                inputs=(TensorSpec(name="seed", shape=(), dtype="int32", role=Role.SEED),), outputs=params
            ),
            "train_step": FunctionSpec(
                inputs=(*params, *fields, scalar),
                outputs=(*params, dataclasses.replace(scalar, name="loss", role=Role.LOSS)),
            ),
        },
        targets=(),
        classes={"label": 3},
    )
    return Reference(manifest=manifest, stablehlo=b"", traced=traced.references)


def test_parameters_that_start_as_nan_are_refused(refusal: Callable[..., str]) -> None:
    start = lambda key: {**init(key), "b": jnp.zeros(3) / jnp.arange(3.0)}  # noqa: E731
    said = refusal(UsageError, lambda: reference(init=start).calls())
    assert said == "init gives NaN in 1 of 3 numbers of params/b for seed 0; mend init, or compile with --no-check"


def test_the_reference_is_jaxs_own_step() -> None:
    calls = reference().calls()
    assert [call.function for call in calls] == ["init", *["train_step"] * 3]
    assert {int(label) for call in calls[1:] for label in call.inputs["batch/label"]} == {0, 1, 2}
    for call in calls[1:]:
        rate = call.inputs["learning_rate"]
        assert rate == (1 if call is calls[-1] else 0.5)
        given = {name: jnp.asarray(call.inputs[f"params/{name}"]) for name in ("w", "b")}
        batch = {name: jnp.asarray(call.inputs[f"batch/{name}"]) for name in ("x", "label")}
        value, gradients = jax.value_and_grad(loss)(given, batch)
        np.testing.assert_allclose(call.results["loss"], value, rtol=1e-6)
        for name in ("w", "b"):
            np.testing.assert_allclose(
                call.results[f"params/{name}"], given[name] - rate * gradients[name], rtol=1e-5, atol=1e-6
            )
            moved = call.moved[f"params/{name}"]
            assert moved.max() < 1e-5
    for before, after in pairwise(calls):
        np.testing.assert_array_equal(after.inputs["params/w"], before.results["params/w"])


STILL = np.zeros(2000)


def far(got: Any, want: Any, moved: np.ndarray | None = None) -> bool:
    return difference(got, want, lambda: STILL[: want.size].reshape(want.shape) if moved is None else moved) is not None


def test_rounding_is_let_through_and_no_more() -> None:
    want = np.linspace(-1, 1, 2000, dtype=np.float32)
    assert not far(want * np.float32(1 + 5e-5), want)
    assert far(want * np.float32(1 + 5e-4), want)
    narrow = want.astype(ml_dtypes.bfloat16)
    assert not far((want * 1.005).astype(ml_dtypes.bfloat16), narrow)
    assert far((want * 1.2).astype(ml_dtypes.bfloat16), narrow)
    # This holds for numbers that were computed in 16 bits and returned in 32, and for no others.
    near, farther = ((want * factor).astype(ml_dtypes.bfloat16).astype(np.float32) for factor in (1.005, 1.2))
    assert not far(near, narrow.astype(np.float32))
    assert far(farther, narrow.astype(np.float32))
    assert far(want * np.float32(1.005), narrow.astype(np.float32))
    # One of two thousand elements may be wrong, but not a whole row, and none of a small tensor.
    wrong = want.copy()
    wrong[5] = 7
    assert not far(wrong, want)
    assert far(wrong[:500], want[:500])
    wrong[:20] = 7
    assert far(wrong, want)
    # Elements may differ as far as JAX's own result moves.
    moved = STILL.copy()
    moved[:20] = 8
    assert not far(wrong, want, moved)


def test_what_is_no_number_has_to_be_none_too() -> None:
    want = np.array([1, np.nan, np.inf, -np.inf], np.float32)
    assert not far(want.copy(), want)
    for index, value in ((0, np.nan), (1, 1), (2, 1e30), (3, np.inf), (0, np.inf)):
        wrong = want.copy()
        wrong[index] = value
        assert far(wrong, want), (index, value)


def test_whole_numbers_are_exact_and_codes_of_eight_bits_may_be_the_next() -> None:
    count = np.arange(4, dtype=np.int32)
    assert not far(count.copy(), count)
    assert far(count + 1, count)
    codes = np.arange(100, dtype=np.int8)
    near = codes.copy()
    near[:2] += 1
    assert not far(near, codes)
    near[:3] = codes[:3] + 1
    assert far(near, codes)
    near = codes.copy()
    near[0] += 2
    assert far(near, codes)


def test_movement_is_the_farthest_of_all_runs() -> None:
    want = np.array([1, np.nan, 3], np.float32)
    runs = [np.array([1.5, np.nan, 3], np.float32), np.array([1.25, np.nan, 1], np.float32)]
    np.testing.assert_array_equal(movement(runs, want), [0.5, 0, 2])
