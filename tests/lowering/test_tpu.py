"""Executables for TPUs: compiled by libtpu without a TPU, described in the manifest, loaded by JAX."""

import dataclasses
import hashlib
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable

import sonew_compiled
from sonew_compiled import compile as compile_module
from sonew_compiled import compile_training, passes
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.install import install_command
from sonew_compiled.jax_settings import start_platforms
from sonew_compiled.lowering import tpu
from sonew_compiled.lowering.diagnostics import first_error
from sonew_compiled.lowering.lower import function_specs
from sonew_compiled.lowering.targets import _tools, resolve_target, why_not_compiled
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import open_bundle
from sonew_compiled.runtime.manifest import FileSpec, Manifest, TargetSpec, TpuFunctionSpec

Refusal = Callable[..., str]
Run = Callable[..., Any]

needs_libtpu = pytest.mark.skipif(
    bool(why_not_compiled(resolve_target("tpu"))), reason=why_not_compiled(resolve_target("tpu")) or "libtpu is here"
)


def _loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(jnp.sum((batch["x"] @ params["down"] @ params["up"] - batch["x"]) ** 2, axis=-1))


# Matrices of whole tiles of 8 by 128 elements, which a TPU's memory does not pad.
MODEL: dict[str, Any] = {
    "loss": _loss,
    "init": lambda key: {"down": jax.random.normal(key, (128, 128)), "up": jax.random.normal(key, (128, 128))},
    "optimizer": optimizer_settings("tridiag-sonew"),
    "batch": {"x": jax.ShapeDtypeStruct((8, 128), jnp.float32)},
    "model": "tiny",
}


@pytest.fixture(scope="session")
def tpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two matrices for a TPU; not to be changed."""
    path = tmp_path_factory.mktemp("tpu") / "tiny.bundle"
    compile_training(**MODEL, output=path, targets=("tpu",), precision="bf16")
    return path


@needs_libtpu
def test_a_bundle_for_a_tpu(tpu_bundle: Path) -> None:
    opened = open_bundle(tpu_bundle)
    opened.verify()
    (target,) = opened.manifest.targets
    assert (target.name, target.file, target.driver) == ("tpu:v5e", "tpu-v5e.zip", "tpu")
    assert {"jaxlib", "libtpu"} <= opened.manifest.versions.keys()
    functions = [program.function for program in target.programs]
    assert sorted(functions) == sorted(opened.manifest.functions)
    with zipfile.ZipFile(opened.file(target.file)) as archive:
        assert archive.namelist() == [f"{name}.xla" for name in functions]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@needs_libtpu
def test_the_state_is_updated_in_place(tpu_bundle: Path) -> None:
    manifest = open_bundle(tpu_bundle).manifest
    state = sum(math.prod(spec.shape) * spec.itemsize for spec in manifest.state)
    programs = {program.function: program for program in manifest.targets[0].programs}
    step = programs["train_step"]
    # Each scalar is padded, to at most 1 KiB.
    assert state <= step.aliased_bytes < state + 1024 * len(manifest.state)
    assert step.aliased_bytes <= step.output_bytes < step.argument_bytes
    assert programs["eval_step"].aliased_bytes == programs["init"].aliased_bytes == 0
    assert programs["init"].output_bytes >= state
    # Two products forward, one backward for `down` and two for `up`. XLA counts these and more.
    assert step.flops > 2 * 8 * 128 * 128 * 5
    assert step.bytes_accessed > step.aliased_bytes
    assert all(program.code_bytes > 0 for program in programs.values())


@needs_libtpu
def test_inspect_shows_the_figures(tpu_bundle: Path, sonew: Run) -> None:
    (target,) = sonew("inspect", tpu_bundle, "--json").json["targets"]
    step = next(program for program in target["programs"] if program["function"] == "train_step")
    shown = sonew("inspect", tpu_bundle).out
    assert f"of which {step['aliased_bytes'] / 1e6:.1f} MB are updated in place" in shown
    assert f"{step['bytes_accessed']:,}" not in shown
    assert f"{step['bytes_accessed']:,}" in sonew("inspect", tpu_bundle, "--kernels").out


def described(*programs: TpuFunctionSpec) -> Manifest:
    """The manifest of the bundle that `loadable` writes."""
    step = function_specs(passes.parse(STEP))["train_step"]
    state = step.outputs[:1]
    return Manifest(
        model="line",
        optimizer={"name": "sgd"},
        defaults={"learning_rate": 0.1, "schedule": "constant"},
        versions={"jaxlib": "0.0.1"},
        functions={
            "init": dataclasses.replace(step, inputs=(), outputs=state),
            "train_step": step,
            "eval_step": dataclasses.replace(step, inputs=state),
        },
        targets=(TargetSpec(name="tpu:v5e", file="tpu-v5e.zip", driver="tpu", programs=programs),),
    )


STEP = """
func.func public @train_step(
    %w: tensor<3xf32> {sonew.name = "params/w", sonew.role = "parameter", jax.buffer_donor = true},
    %x: tensor<2xf32> {sonew.name = "batch", sonew.role = "batch"},
    %lr: tensor<f32> {sonew.name = "learning_rate", sonew.role = "learning_rate"})
    -> (tensor<3xf32> {sonew.name = "params/w", sonew.role = "parameter"},
        tensor<f32> {sonew.name = "loss", sonew.role = "loss"}) {
  return %w, %lr : tensor<3xf32>, tensor<f32>
}
"""


@pytest.fixture
def loadable(tmp_path: Path) -> Path:
    """A bundle whose executable is for the processor and has only `train_step`."""
    compiled = (
        jax.jit(lambda w, x, lr: (w - lr * jnp.sum(x), jnp.sum(x)))
        .lower(jnp.zeros(3), jnp.zeros(2), jnp.float32(0))
        .compile()
    )
    archive = tpu._archive({"train_step.xla": serialize_executable.serialize(compiled)[0]})
    (tmp_path / "tpu-v5e.zip").write_bytes(archive)
    files = {"tpu-v5e.zip": FileSpec(sha256=hashlib.sha256(archive).hexdigest(), size=len(archive))}
    (tmp_path / "manifest.json").write_text(dataclasses.replace(described(), files=files).to_json())
    return tmp_path


def test_programs_are_read_back_and_older_manifests_have_none() -> None:
    program = TpuFunctionSpec(
        function="train_step",
        code_bytes=1,
        argument_bytes=2,
        output_bytes=3,
        aliased_bytes=4,
        temporary_bytes=5,
        flops=6,
        bytes_accessed=7,
    )
    text = described(program).to_json()
    assert Manifest.from_json(text, source="here").targets[0].programs == (program,)
    older = json.loads(text)
    del older["targets"][0]["programs"]
    assert Manifest.from_json(json.dumps(older), source="here").targets[0].programs == ()


# --- Loading, with a processor in the place of the TPU


def test_a_program_takes_and_gives_what_the_manifest_says(loadable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = jax.devices("cpu")
    asked: list[str] = []
    monkeypatch.setattr(jax, "devices", lambda kind: asked.append(kind) or devices)
    step = sonew_compiled.load_tpu_program(loadable, "train_step", target="TPU:v5e")
    assert asked == ["tpu"]
    w, loss = step(jnp.ones(3), jnp.array([1.0, 2.0]), jnp.float32(0.5))
    np.testing.assert_array_equal(w, [-0.5, -0.5, -0.5])
    assert loss == 3
    with pytest.raises(TypeError):
        step(jnp.ones(3))


def test_code_that_the_device_refuses(loadable: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    devices = jax.devices("cpu")
    monkeypatch.setattr(jax, "devices", lambda kind: devices)
    message = refusal(SonewError, lambda: sonew_compiled.load_tpu_program(loadable, "init"))
    assert "has no executable of init" in message
    archive = tpu._archive({"train_step.xla": b"nonsense"})
    (loadable / "tpu-v5e.zip").write_bytes(archive)
    files = {"tpu-v5e.zip": FileSpec(sha256=hashlib.sha256(archive).hexdigest(), size=len(archive))}
    (loadable / "manifest.json").write_text(dataclasses.replace(described(), files=files).to_json())
    message = refusal(SonewError, lambda: sonew_compiled.load_tpu_program(loadable, "train_step"))
    assert "cannot be loaded on cpu" in message
    assert "made with jaxlib 0.0.1 and libtpu (unknown), and here are jaxlib 0." in message


def test_a_machine_without_a_tpu(loadable: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    def devices(kind: str) -> list[Any]:
        raise RuntimeError(f"Unknown backend {kind}\nand more")

    monkeypatch.setattr(jax, "devices", devices)
    message = refusal(SonewError, lambda: sonew_compiled.load_tpu_program(loadable, "train_step"))
    assert "JAX finds no TPU here" in message
    assert "jax[tpu]" in message


@pytest.mark.parametrize(
    ("function", "target", "kind", "said"),
    [
        ("train_step", "cpu", UsageError, "target 'cpu' is not a TPU's; give tpu:v5e, tpu:v4 or tpu:v6e"),
        ("train_step", "tpu:v9", UsageError, "give one of tpu:v5e"),
        ("test_step", "tpu", UsageError, "has no function 'test_step'; it has eval_step, init, train_step"),
        ("train_step", "tpu:v4", SonewError, "no code for tpu:v4: it holds tpu:v5e; add it with"),
    ],
)
def test_what_cannot_be_loaded(
    loadable: Path, refusal: Refusal, function: str, target: str, kind: type[SonewError], said: str
) -> None:
    assert said in refusal(kind, lambda: sonew_compiled.load_tpu_program(loadable, function, target=target))


# --- Where libtpu is missing, and how it fails


def test_without_libtpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refusal: Refusal, sonew: Run) -> None:
    monkeypatch.setattr(_tools, "has_libtpu", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(compile_module, "trace_training", lambda **_: pytest.fail("nothing is to be traced"))
    message = refusal(SonewError, lambda: compile_training(**MODEL, output=tmp_path / "out", targets=("cpu", "tpu")))
    assert message == f"this machine lacks the compiler for target tpu:v5e: to compile, {install_command('tpu')}"
    rows = {row["name"]: row for row in sonew("targets", "--json").json}
    assert not rows["tpu:v5e"]["compile"]
    assert rows["tpu:v5e"]["reason"].startswith(f"to compile, {install_command('tpu')}; IREE has no driver")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "Linux on x86-64" in why_not_compiled(resolve_target("tpu"))


@needs_libtpu
def test_a_machine_without_a_tpu_says_nothing_of_it() -> None:
    """Tracing starts JAX's platforms, and libtpu is one that it looks for."""
    code = "from sonew_compiled.jax_settings import start_platforms; start_platforms()"
    # One process at a time may load libtpu, unless it is allowed to more.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    environment["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.parametrize("tpus", ["0", "1"])
def test_a_machine_with_a_tpu_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tpus: str) -> None:
    """JAX sets the variable if it finds no TPU; what the user has set stays in any case, and nothing is left behind."""
    names = ("TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES")
    seen = []
    monkeypatch.setattr(jax, "devices", lambda: seen.append([os.environ.get(name) for name in names]))
    monkeypatch.delenv(names[0], raising=False)
    monkeypatch.setenv(names[1], "mine")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    if tpus == "0":
        monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    before = dict(os.environ)
    start_platforms()
    assert seen == [[None if tpus == "1" else "v5litepod-4", "mine"]]
    assert dict(os.environ) == before


def failure(module: str, **changes: str) -> tuple[str, str, str]:
    """The error of a compilation, its remedy and the log."""
    target = dataclasses.replace(resolve_target("tpu"), **changes)
    artifact = passes.to_portable_artifact(passes.parse(module))
    with pytest.raises(SonewError) as caught:
        tpu.lower_tpu(artifact, target, what="tiny with adam")
    message, _, path = str(caught.value).partition("; the compiler's log is ")
    begin = "cannot compile tiny with adam for target tpu:v5e: "
    assert message.startswith(begin)
    assert len(message) < 600
    text = Path(path).read_text()
    Path(path).unlink()
    assert "sonew_compiled.lowering._tpu_worker" in text.splitlines()[0]
    error, _, remedy = message.removeprefix(begin).rpartition("; ")
    return error, remedy, text


@needs_libtpu
def test_the_same_module_gives_the_same_bytes() -> None:
    artifact = passes.to_portable_artifact(passes.parse(STEP))
    first, second = (tpu.lower_tpu(artifact, resolve_target("tpu:v4"), what="line") for _ in range(2))
    assert first == second
    assert first[1][0].aliased_bytes > 0


@needs_libtpu
def test_an_operation_that_xla_has_not() -> None:
    custom = "%v = stablehlo.custom_call @nonsense(%w) : (tensor<3xf32>) -> tensor<3xf32>\n  return %v, %lr"
    error, remedy, log = failure(STEP.replace("return %w, %lr", custom))
    assert "nonsense" in error
    assert "try another target" in remedy
    assert "Traceback" in log


@needs_libtpu
def test_a_topology_that_libtpu_has_not() -> None:
    assert "v99" in failure(STEP, topology="v99:2x2")[0]


def test_libtpu_may_end_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'F1124 12:00:00.0 7 a.cc:5] Check failed: x' >&2\nkill -ABRT $$\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    assert failure(STEP)[0] == "libtpu crashed (SIGABRT): Check failed: x"
    assert first_error("nothing of use", 3, compiler="libtpu") == "libtpu ended with exit code 3 and no error message"


def test_the_signature_is_that_of_the_module(tmp_path: Path) -> None:
    """The worker's request has the donated argument, shapes and dtypes, and one public function."""
    artifact = passes.to_portable_artifact(passes.parse(STEP))
    assert tpu._write_request(tmp_path, artifact, resolve_target("tpu:v4")) == ["train_step"]
    request = json.loads((tmp_path / "request.json").read_text())
    assert (request["topology"], request["chip_config"]) == ("v4:2x2x1", "megacore")
    assert request["functions"]["train_step"]["inputs"] == [
        {"shape": [3], "dtype": "float32", "donated": True},
        {"shape": [2], "dtype": "float32", "donated": False},
        {"shape": [], "dtype": "float32", "donated": False},
    ]
    text = passes.to_text(passes.from_portable_artifact((tmp_path / "train_step.stablehlo").read_bytes()))
    assert "func.func public @main(%arg0: tensor<3xf32>, %arg1: tensor<2xf32>, %arg2: tensor<f32>)" in text
