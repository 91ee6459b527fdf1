"""Precision policies: their stored types, training on every target, and the arithmetic of their passes."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from sonew_compiled import passes
from sonew_compiled.compile import compile_training
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.optimizer import preconditioner, statistics_dtype
from sonew_compiled.passes import POLICIES
from sonew_compiled.presets import PRECISIONS, optimizer_settings
from sonew_compiled.runtime import Device, open_bundle
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.state import TrainingState

TARGETS = ("cpu", "vmvx")
# Compiling takes most of the time of these tests, so not all optimizers have both targets. All do train on both.
OPTIMIZERS = {"adam": ("vmvx",), "tridiag-sonew": TARGETS, "band-sonew": ("cpu",)}
STEPS = 30

Params = dict[str, jax.Array]
Batch = dict[str, jax.Array]
Bundles = Callable[..., Path]


def _init(key: jax.Array) -> Params:
    del key  # random numbers would take most of the compile time
    return {"kernel": 0.5 * jnp.sin(1.7 * jnp.arange(20.0)).reshape(5, 4), "bias": jnp.zeros(4)}


def _loss(params: Params, batch: Batch) -> jax.Array:
    predicted = jnp.tanh(batch["x"] @ params["kernel"] + params["bias"])
    return jnp.mean(jnp.sum(jnp.square(predicted - batch["y"]), axis=-1))


BATCH = {"x": jax.ShapeDtypeStruct((16, 5), jnp.float32), "y": jax.ShapeDtypeStruct((16, 4), jnp.float32)}


def _data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 5)).astype(np.float32)
    return {"x": x, "y": np.tanh(x @ rng.normal(size=(5, 4)) / 2).astype(np.float32)}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    """Bundles by policy, optimizer and target, with one target each; compiled two at a time."""
    root = tmp_path_factory.mktemp("precision")

    def compiled(policy: str, optimizer: str) -> Path:
        path = root / f"{policy}-{optimizer}"
        # The statistics of a few steps are singular. With less damping, rounding alone would decide which edges are
        # removed.
        settings = optimizer_settings(optimizer, eps=None if optimizer == "adam" else 0.1)
        targets = OPTIMIZERS[optimizer]
        manifest = compile_training(
            _loss, _init, settings, BATCH, output=path, targets=targets, precision=policy, check=False
        )
        for target in manifest.targets:
            only = shutil.copytree(path, root / f"{path.name}-{target.name}")
            (only / "manifest.json").write_text(dataclasses.replace(manifest, targets=(target,)).to_json())
        return path

    with ThreadPoolExecutor(2) as pool:
        futures: Mapping[tuple[str, str], Future[Path]] = {
            (policy, optimizer): pool.submit(compiled, policy, optimizer)
            for policy in POLICIES
            for optimizer in OPTIMIZERS
        }

        def bundle(policy: str, optimizer: str, target: str) -> Path:
            path = futures[policy, optimizer].result()
            return path.with_name(f"{path.name}-{target}")

        yield bundle
        for future in futures.values():
            future.cancel()


class _Run:
    """A loaded bundle with a state and one batch."""

    def __init__(self, path: Path, device: Device) -> None:
        self.program = Program.load(open_bundle(path), device)
        self.state = TrainingState.initial(self.program, seed=0)
        self.rate = device.upload(np.array(0.01, np.float32))

    def steps(self, count: int, **batch: np.ndarray) -> list[float]:
        fields = self.program.upload_batch(_data() | batch)
        return [self.state.step(fields, self.rate) for _ in range(count)]

    def resume(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.state = TrainingState.from_arrays(self.program, arrays)


# ----- the policies


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_trains(policy: str, optimizer: str, bundles: Bundles, cpu: Device) -> None:
    targets = OPTIMIZERS[optimizer]
    reference = _Run(bundles("f32", optimizer, targets[0]), cpu).steps(STEPS)
    found = {}
    for target in targets:
        run = _Run(bundles(policy, optimizer, target), cpu)
        found[target] = run.steps(STEPS)
        assert np.isfinite(found[target]).all()
        assert all(np.isfinite(each.astype(np.float64)).all() for each in run.state.download().values())
        assert found[target][-1] < 0.7 * found[target][0]
        tolerance = 0.1 if policy == "bf16-pure" else 0.03
        assert found[target][-1] == pytest.approx(reference[-1], rel=tolerance)
    for losses in found.values():
        np.testing.assert_allclose(losses[:20], found[targets[0]][:20], rtol=1e-4 if policy == "f32" else 2e-2)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda policy: policy.name)
def test_stores_what_the_policy_says(policy: passes.Policy, bundles: Bundles) -> None:
    manifest = open_bundle(bundles(policy.name, "tridiag-sonew", "vmvx")).manifest
    assert manifest.precision == policy.name
    assert {spec.dtype for spec in manifest.parameters} == {policy.parameter_dtype}
    floats = {spec.dtype for spec in manifest.state if spec.name.startswith("optimizer/") and "float" in spec.dtype}
    assert floats == {policy.state_dtype}
    assert {spec.dtype for spec in manifest.batch} == {"float32"}
    step = manifest.functions["train_step"]
    assert {s.dtype for s in (*step.inputs, *step.outputs) if s.name in ("learning_rate", "loss")} == {"float32"}


@pytest.mark.parametrize("policy", ["bf16-sr", "f16-mixed"])
def test_resumes_bit_for_bit(policy: str, bundles: Bundles, cpu: Device) -> None:
    run = _Run(bundles(policy, "tridiag-sonew", "cpu"), cpu)
    run.steps(5)
    middle = run.state.download()
    losses = run.steps(5)
    end = run.state.download()
    run.resume(middle)
    assert run.steps(5) == losses
    for name, value in run.state.download().items():
        assert value.tobytes() == end[name].tobytes(), name


def test_rounds_as_the_reference_does_in_pure_bf16(bundles: Bundles, cpu: Device) -> None:
    for target in TARGETS:
        run = _Run(bundles("bf16-pure", "tridiag-sonew", target), cpu)
        arrays = run.state.download() | {f"batch/{name}": value for name, value in _data().items()}
        function = run.program.manifest.functions["eval_step"]
        results = run.program.call("eval_step", {spec.name: cpu.upload(arrays[spec.name]) for spec in function.inputs})
        losses = cpu.download(results["losses"], "float32", (16,))

        artifact = open_bundle(bundles("bf16-pure", "tridiag-sonew", target)).file("module.stablehlo").read_bytes()
        module = passes.parse(passes.to_text(passes.from_portable_artifact(artifact)).replace("@eval_step", "@main"))
        (expected,) = _evaluate(module, *(arrays[spec.name] for spec in function.inputs))
        np.testing.assert_array_equal(losses, expected)


def test_unknown_policy_lists_those_there_are(tmp_path: Path) -> None:
    assert tuple(POLICIES) == PRECISIONS
    with pytest.raises(UsageError, match="unknown precision 'f8'; give one of f32, bf16, bf16-pure, bf16-mixed"):
        compile_training(_loss, _init, optimizer_settings(), BATCH, output=tmp_path / "b", precision="f8")


def test_a_manifest_says_its_precision(tiny_bundle: Path) -> None:
    raw = json.loads((tiny_bundle / "manifest.json").read_text())
    assert Manifest.from_json(json.dumps(raw), source="m").precision == "f32"
    del raw["precision"]
    with pytest.raises(SonewError, match="precision"):
        Manifest.from_json(json.dumps(raw), source="m")


# ----- edge removal


def test_gamma_follows_the_dtype_of_the_stored_statistics() -> None:
    # s = 1 - 0.998^2 = 0.004 lies between the epsilons of bfloat16 (0.0078) and float32.
    bands = [jnp.ones(2), jnp.array([0.998, 0.0])]
    assert preconditioner(bands).L[0][0] != 0
    with statistics_dtype("bfloat16"):
        assert preconditioner(bands).L[0][0] == 0
        assert preconditioner(bands, tolerance=1e-6).L[0][0] != 0
    with statistics_dtype("float32"):
        assert preconditioner(bands).L[0][0] != 0


# ----- loss scaling


def test_an_overflow_leaves_the_state_and_halves_the_scale(bundles: Bundles, cpu: Device) -> None:
    run = _Run(bundles("f16-mixed", "tridiag-sonew", "cpu"), cpu)
    run.steps(3)
    before = run.state.download()
    (loss,) = run.steps(1, x=np.full((16, 5), 1e6, np.float32))  # float16 ends at 65504
    after = run.state.download()
    assert before["precision/loss_scale"] == 2**15
    assert after.pop("precision/loss_scale") == 2**14
    assert before["precision/good_steps"] == 3
    assert after.pop("precision/good_steps") == 0
    for name, value in after.items():
        assert value.tobytes() == before[name].tobytes(), name
    del loss  # whatever the forward pass made of it
    losses = run.steps(5)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_the_scale_grows_again_and_stays_in_bounds(bundles: Bundles, cpu: Device) -> None:
    run = _Run(bundles("f16-mixed", "adam", "vmvx"), cpu)
    start = run.state.download()
    for scale, good, x, expected in (
        (2.0**15, 199, 1.0, (2.0**16, 0)),
        (2.0**15, 198, 1.0, (2.0**15, 199)),
        (1.0, 7, 1e6, (1.0, 0)),
    ):
        arrays = {"precision/loss_scale": np.array(scale, np.float32), "precision/good_steps": np.array(good, np.int32)}
        run.resume(start | arrays)
        run.steps(1, x=np.full((16, 5), x, np.float32))
        after = run.state.download()
        assert (after["precision/loss_scale"], after["precision/good_steps"]) == expected


# ----- stochastic rounding

COPY = """
func.func public @init(%w: tensor<{shape}xf32> {{sonew.name = "seed"}})
    -> (tensor<{shape}xf32> {{sonew.name = "params/w", sonew.role = "parameter"}}) {{
  return %w : tensor<{shape}xf32>
}}
func.func public @train_step(
    %v: tensor<2xf32> {{sonew.name = "params/v", sonew.role = "parameter"}},
    %w: tensor<{shape}xf32> {{sonew.name = "params/w", sonew.role = "parameter"}},
    %x: tensor<{shape}xf32> {{sonew.name = "batch/x"}})
    -> (tensor<2xf32> {{sonew.name = "params/v", sonew.role = "parameter"}},
        tensor<{shape}xf32> {{sonew.name = "params/w", sonew.role = "parameter"}}) {{
  return %v, %x : tensor<2xf32>, tensor<{shape}xf32>
}}
"""


def _mix(x: np.ndarray) -> np.ndarray:
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return np.asarray(x ^ (x >> np.uint32(16)))


def _stochastically_rounded(x: np.ndarray, step: int, tensor: int) -> np.ndarray:
    index = np.arange(x.size, dtype=np.uint32)
    key = _mix(_mix(np.array([step + 0x9E3779B9 & 0xFFFFFFFF], np.uint32)) ^ np.uint32(tensor))
    noise = _mix(_mix(index) ^ key) >> np.uint32(16)
    bits = x.reshape(-1).view(np.uint32)
    magnitude = bits & np.uint32(0x7FFFFFFF)
    rounded = np.minimum(magnitude + noise, np.uint32(0x7F7FFFFF))
    rounded = np.where(magnitude < 0x7F800000, rounded, np.where(magnitude == 0x7F800000, magnitude, 0x7FC00000))
    return (
        (((rounded | bits & np.uint32(0x80000000)) >> 16).astype(np.uint16)).view(ml_dtypes.bfloat16).reshape(x.shape)
    )


@pytest.fixture(scope="module", params=TARGETS)
def rounding(request: pytest.FixtureRequest) -> Callable[[np.ndarray, int], np.ndarray]:
    """A million numbers as a target rounds them at a step."""
    import iree.runtime as rt

    module = passes.parse(COPY.format(shape="1000x1000"))
    chosen = ["lower-storage", "stochastic-rounding", "wire-donation"]
    passes.run_pipeline(module, [passes.parse_pass(each) for each in chosen])
    config = rt.Config("local-sync")
    context = rt.SystemContext(config=config)
    code = lower_iree(passes.to_portable_artifact(module), resolve_target(request.param), what="rounding")
    context.add_vm_module(rt.VmModule.copy_buffer(context.instance, code))

    def rounded(x: np.ndarray, step: int) -> np.ndarray:
        state = [np.zeros(2, ml_dtypes.bfloat16), np.zeros(x.shape, ml_dtypes.bfloat16)]
        buffers = [rt.asdevicearray(config.device, each.view(np.int16)) for each in state]
        results = context.modules.module.train_step(*buffers, x, np.array(step, np.int32))
        assert results[2].to_host() == step + 1
        return results[1].to_host().copy().view(ml_dtypes.bfloat16)  # a copy, since the memory belongs to the device

    return rounded


def test_stochastic_rounding_follows_its_bit_rule(rounding: Callable[[np.ndarray, int], np.ndarray]) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint32)
    special = np.array([0, 1, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF, 0x7F7F0000, 0x3F800000], np.uint32)
    bits[:16] = np.concatenate([special, special | np.uint32(0x80000000)])
    x = bits.view(np.float32).reshape(1000, 1000)
    for step in (0, 12345):
        rounded = rounding(x, step)
        assert rounded.tobytes() == _stochastically_rounded(x, step, 1).tobytes()
    with np.errstate(invalid="ignore"):
        assert np.isfinite(rounded.astype(np.float32)).sum() == np.isfinite(x).sum()


def test_stochastic_rounding_has_no_bias(rounding: Callable[[np.ndarray, int], np.ndarray]) -> None:
    for step, fraction in enumerate((0.03, 0.3, 0.5, 0.9)):
        for sign, exponent in ((1, 0), (-1, -30)):
            last_place = 2.0 ** (exponent - 7)
            value = np.float32(sign * (2.0**exponent + fraction * last_place))
            rounded = rounding(np.full((1000, 1000), value), step).astype(np.float64)
            below, part = 2.0**exponent, (abs(float(value)) - 2.0**exponent) / last_place
            assert set(np.abs(rounded).ravel()) == {below, below + last_place}
            error = last_place * np.sqrt(part * (1 - part) / rounded.size)
            assert abs(rounded.mean() - float(value)) < 4 * error


def test_what_bf16_has_is_not_rounded(rounding: Callable[[np.ndarray, int], np.ndarray]) -> None:
    x = np.random.default_rng(1).normal(size=(1000, 1000)).astype(ml_dtypes.bfloat16)
    assert rounding(x.astype(np.float32), 7).tobytes() == x.tobytes()


# ----- emulation


@pytest.mark.parametrize(("name", "dtype"), [("bf16", ml_dtypes.bfloat16), ("f16", np.float16)])
def test_emulated_rounding_is_the_rounding(name: str, dtype: type[np.generic]) -> None:
    module = passes.parse(f"""
      func.func public @main(%x: tensor<4096xi32>) -> tensor<4096xi32> {{
        %0 = stablehlo.bitcast_convert %x : (tensor<4096xi32>) -> tensor<4096xf32>
        %1 = stablehlo.convert %0 : (tensor<4096xf32>) -> tensor<4096x{name}>
        %2 = stablehlo.convert %1 : (tensor<4096x{name}>) -> tensor<4096xf32>
        %3 = stablehlo.bitcast_convert %2 : (tensor<4096xf32>) -> tensor<4096xi32>
        return %3 : tensor<4096xi32>
      }}""")
    passes.run_pipeline(module, [passes.parse_pass("emulate-rounding")])
    assert f"x{name}>" not in passes.to_text(module)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 4096, dtype=np.uint32)
    bits[1024:2048] = (rng.normal(size=1024) * 2.0 ** rng.integers(-28, 18, 1024)).astype(np.float32).view(np.uint32)
    bits[2048:3072] &= np.uint32(0xFFFFF000)  # ties
    bits[3072:] &= np.uint32(0xFFFF8000)
    bits[:4] = np.array([65504.0, 65519.9, 65520.0, -(2.0**-25)], np.float32).view(np.uint32)
    (result,) = _evaluate(module, bits.view(np.int32))
    with np.errstate(over="ignore", invalid="ignore"):
        expected = bits.view(np.float32).astype(dtype).astype(np.float32)
    found = result.astype(np.int32).view(np.float32)
    np.testing.assert_array_equal(found, expected)  # all NaN count as equal
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("source", ["i1", "i32"])
def test_rounded_integers_link_for_processors_without_the_instruction(source: str) -> None:
    module = passes.parse(f"""
      func.func public @main(%x: tensor<8x8x{source}>) -> tensor<8x8xbf16> {{
        %0 = stablehlo.convert %x : (tensor<8x8x{source}>) -> tensor<8x8xf32>
        %1 = stablehlo.convert %0 : (tensor<8x8xf32>) -> tensor<8x8xbf16>
        return %1 : tensor<8x8xbf16>
      }}""")
    target = resolve_target("cpu:x86-64-v2")
    passes.run_pipeline(module, list(map(passes.parse_pass, target.passes)))
    assert lower_iree(passes.to_bytes(module), target, what="a rounding")


def _evaluate(module: ir.Module, *arguments: np.ndarray) -> list[np.ndarray]:
    """Run `@main` with StableHLO's reference interpreter."""
    with module.context, ir.Location.unknown():
        results = stablehlo.eval_module(module, [_attribute(each) for each in arguments])
        return [np.array(list(each)).reshape(ir.ShapedType(each.type).shape) for each in results]


def _attribute(array: np.ndarray) -> ir.Attribute:
    if array.dtype == ml_dtypes.bfloat16:
        return ir.DenseElementsAttr.get(array.view(np.uint16), type=ir.BF16Type.get(), shape=array.shape)
    return ir.DenseElementsAttr.get(array)
