"""The check before a bundle is written: it finds wrong results of any kind, and accepts differences by rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sonew_compiled.compile as compile_module
from sonew_compiled import inference, passes
from sonew_compiled.check import Call, Reference, _run, check_executable, check_executables, why_not_checked
from sonew_compiled.compile import compile_training
from sonew_compiled.contract import STABLEHLO_FILE, Role
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.inference import export_inference
from sonew_compiled.lowering.lower import adapt
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import Bundle, Program, open_bundle
from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TargetSpec, TensorSpec
from sonew_compiled.trace import trace_training

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


def loaded(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive."""
    with np.load(path) as archive:
        return dict(archive)


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
    inputs, results, expected = (loaded(dump / f"{function}-{part}.npz") for part in ("inputs", "results", "expected"))
    assert sorted(results) == sorted(expected)
    assert any(not np.allclose(results[name], expected[name], rtol=1e-4) for name in results)
    if function == "predict":
        wanted = inputs["batch.x"] @ inputs["params.w"] + inputs["params.b"]
        np.testing.assert_allclose(expected["prediction"], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(results["prediction"], 1.001 * wanted, rtol=1e-5, atol=1e-6)
    compile_training(**GIVEN, output=tmp_path / "bundle", check=False)
    assert (tmp_path / "bundle" / "cpu.vmfb").exists()


def test_examples_of_others_are_found(
    parts_bundle: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executable takes the example before."""
    bundle = open_bundle(parts_bundle)
    (target,) = bundle.manifest.targets
    take = Program.take

    def before(program: Program, name: str, data: Any, indices: Any) -> Any:
        numbers = program.device.download(indices, "int32", tuple(indices.shape))
        return take(program, name, data, program.device.upload(np.maximum(numbers - 1, 0)))

    check_executable(bundle.read(target.file), target, bundle.manifest, [])
    monkeypatch.setattr(Program, "take", before)
    message = refusal(SonewError, lambda: check_executable(bundle.read(target.file), target, bundle.manifest, []))
    assert message.startswith("the executable for cpu computes take_")


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
        again=lambda inputs, **_: {"losses": 2 * inputs["params"]},
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
    view = Program.view
    count = iter(range(100))

    def unsteady(program: Program, spec: TensorSpec, buffer: Any) -> np.ndarray:
        # A difference in the last place, which is within every tolerance.
        got = view(program, spec, buffer)
        if spec.name != "losses":
            return calls[0].inputs["params"]
        return np.nextafter(got, np.float32(9)) if next(count) == 1 else got

    monkeypatch.setattr(Program, "view", unsteady)
    message = refusal(SonewError, lambda: check_executable(executable, TARGET, manifest, calls))
    assert "computes eval_step wrongly: losses is not the same in two calls with the same inputs" in message


@pytest.mark.usefixtures("only_eval_step")
def test_a_result_over_an_earlier_one_is_found(
    damage: tuple[bytes, Manifest, list[Call]], refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both calls give the same memory, in which only the later result is left to compare."""
    executable, manifest, calls = damage
    shared = np.empty(4, np.float32)

    def over(program: Program, spec: TensorSpec, buffer: Any) -> np.ndarray:
        if spec.name != "losses":
            return calls[0].inputs["params"]
        shared[:] = program.download(spec, buffer)
        return shared

    monkeypatch.setattr(Program, "view", over)
    message = refusal(SonewError, lambda: check_executable(executable, TARGET, manifest, calls))
    assert "computes eval_step wrongly: it writes losses over that of an earlier call" in message


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


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[Call]]:
    """A bundle with all exports there are, and JAX's calls of them."""
    path = tmp_path_factory.mktemp("check") / "bundle"
    compile_training(**GIVEN, output=path, targets=("vmvx",), micro_batch=4, check=False)
    bundle = open_bundle(path)
    whole = Reference(manifest=bundle.manifest, stablehlo=bundle.read(STABLEHLO_FILE), traced={})
    return bundle, whole.calls()


def _plus(more: np.ndarray, name: str, results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**results, name: results[name] + more}


def test_another_number_in_any_result_of_any_function_is_found(
    parts: tuple[Bundle, list[Call]], refusal: Callable[..., str]
) -> None:
    bundle, calls = parts
    manifest = bundle.manifest
    (target,) = manifest.targets
    executable = bundle.read(target.file)
    last = {call.function: call for call in calls}
    assert last.keys() == {"init", "train_step", "eval_step", "predict", "gradients", "update"}
    # As they are, all agree.
    check_executable(executable, target, manifest, calls)
    for call in last.values():
        assert call.results.keys() == {spec.name for spec in manifest.functions[call.function].outputs}
        for name, value in call.results.items():
            wrong = partial(_plus, np.zeros(value.shape, value.dtype), name)
            wrong.args[0].reshape(-1)[-1:] = 1 if value.dtype.kind in "iu" else 1e-3 + 1e-2 * np.abs(value).max()
            changed = dataclasses.replace(
                call,
                results=wrong(call.results),
                again=lambda inputs, call=call, wrong=wrong, **moves: wrong(call.again(inputs, **moves)),
            )
            message = refusal(SonewError, partial(check_executable, executable, target, manifest, [changed]))
            assert f"computes {call.function} wrongly: {name} differs from JAX's in 1 of {value.size}" in message


def test_each_function_of_each_executable_is_tried(
    parts: tuple[Bundle, list[Call]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, calls = parts
    tried: list[list[str]] = []

    def record(executable: bytes, target: Any, manifest: Any, calls: list[Call], **_: Any) -> str:
        tried.append([call.function for call in calls])
        return target.name

    monkeypatch.setattr(_run, "check_executable", record)
    targets = tuple(dataclasses.replace(TARGET, name=name, file=name) for name in ("one", "other"))
    manifest = dataclasses.replace(bundle.manifest, targets=targets)
    files = dict.fromkeys(("one", "other"), b"")
    expected: Future[list[Call]] = Future()
    expected.set_result(calls)
    assert check_executables(files, manifest, expected, progress=lambda line: None) == "one"
    others = ["eval_step", "predict", "gradients", "update"]
    assert [sorted(each) for each in tried] == [
        sorted(["init", *["train_step"] * 3, *others]),
        sorted(["init", "train_step", *others]),
    ]


@pytest.mark.parametrize("error", [UsageError("init gives NaN"), MemoryError("no room")])
def test_what_is_refused_while_jax_computes_is_refused(error: Exception, damage: tuple[bytes, Manifest, Any]) -> None:
    expected: Future[list[Call]] = Future()
    expected.set_exception(error)
    said: list[str] = []
    check = partial(check_executables, {}, damage[1], expected, progress=said.append)
    if isinstance(error, UsageError):
        with pytest.raises(UsageError, match="init gives NaN"):
            check()
    else:
        assert check() is None
        assert said == ["not checked: JAX does not run it here (MemoryError: no room)"]


def test_a_bundle_for_inference_is_checked_with_its_weights(
    parts: tuple[Bundle, list[Call]], tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, calls = parts
    weights = {spec.name: calls[-1].inputs[spec.name] for spec in bundle.manifest.parameters}
    said: list[str] = []
    export_inference(bundle, weights, tmp_path / "infer", progress=said.append)
    assert said[-1] == "check vmvx against JAX"

    def wrong(stablehlo: bytes, *given: Any, **more: Any) -> bytes:
        text = str(passes.from_portable_artifact(stablehlo))
        assert "stablehlo.add %" in text
        module = passes.parse(text.replace("stablehlo.add %", "stablehlo.subtract %"))
        return adapt(passes.to_portable_artifact(module), *given, **more)

    monkeypatch.setattr(inference, "adapt", wrong)
    dump = tmp_path / "dump"
    message = refusal(SonewError, lambda: export_inference(bundle, weights, tmp_path / "wrong", dump_check=dump))
    assert message.startswith("the executable for vmvx computes eval_step wrongly: losses differs from JAX's in ")
    assert not (tmp_path / "wrong").exists()
    assert (dump / "eval_step-expected.npz").exists()
    export_inference(bundle, weights, tmp_path / "wrong", check=False)


def test_jax_moves_further_before_a_result_is_called_wrong(
    parts: tuple[Bundle, list[Call]], refusal: Callable[..., str]
) -> None:
    bundle, calls = parts
    manifest = bundle.manifest
    (target,) = manifest.targets
    call = next(call for call in calls if call.function == "eval_step")
    (name,) = call.results
    wrong = call.results[name] + np.array([1, *[0] * 7], np.float32)
    for moves, runs in ((True, 2 + 3), (False, 2 + 4 * 3)):
        # From the third run on, the element hangs on a comparison that falls the other way; or it never does.
        asked: list[int] = []

        def again(inputs: Any, asked: list[int] = asked, moves: bool = moves, **_: Any) -> dict[str, np.ndarray]:
            asked.append(1)
            return {name: call.results[name] if moves and len(asked) > 2 else wrong}

        changed = dataclasses.replace(call, results={name: wrong}, again=again)
        check = partial(check_executable, bundle.read(target.file), target, manifest, [changed])
        if moves:
            check()
        else:
            assert "in 1 of 8 numbers, by up to 1" in refusal(SonewError, check)
        assert len(asked) == runs
