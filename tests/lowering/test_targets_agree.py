"""The same training step gives the same losses on every kind of device that needs no GPU."""

import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plugins.devices import close_vulkan

from sonew_compiled.compile import compile_training
from sonew_compiled.contract import EVAL_STEP
from sonew_compiled.passes import POLICIES
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import bind, list_devices, open_bundle, open_device
from sonew_compiled.runtime.examples import Examples
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.state import TrainingState

DEVICES = {"cpu": "local-task", "vmvx": "local-sync", "vulkan": "vulkan"}
STEPS = 20
# Weights of three times 256 numbers, because IREE's code for Vulkan handles multiples of 256 in vectors. One matrix
# encodes and decodes, since a driver takes as long as the compiler for each tensor of the update.
WIDTH, CODE = 64, 12
BATCH = {"image": jax.ShapeDtypeStruct((32, WIDTH), jnp.float32)}

Params = dict[str, jax.Array]


def _init(key: jax.Array) -> Params:
    del key  # random numbers would take most of the compile time
    return {
        "kernel": jnp.asarray(0.2 * np.random.default_rng(WIDTH).normal(size=(WIDTH, CODE)), jnp.float32),
        "bias": jnp.zeros(CODE),
        "gain": jnp.ones(1),  # an odd count, since bfloat16 may be stored in pairs
    }


def _loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
    code = params["gain"] * jnp.tanh(batch["image"] @ params["kernel"] + params["bias"])
    return jnp.mean(jnp.sum(jnp.square(jnp.tanh(code @ params["kernel"].T) - batch["image"]), axis=-1))


def _batches() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(6, WIDTH))
    return [np.tanh(rng.normal(size=(32, 6)) @ basis / 3).astype(np.float32) for _ in range(STEPS)]


def _losses(path: Path, device_name: str) -> np.ndarray:
    device = open_device(device_name)
    # Trying it in a process of its own, which is tested elsewhere, would have the driver compile it twice.
    program = Program.load(dataclasses.replace(open_bundle(path), is_trusted=True), device)
    state = TrainingState.initial(program, seed=0)
    # The state goes to the host and back, as for a checkpoint.
    state = TrainingState.from_arrays(program, state.download())
    rate = device.upload(np.array(3e-3, np.float32))
    losses = np.array([state.step(program.upload_batch({"image": batch}), rate) for batch in _batches()])
    _check_examples(program)
    del program, state, rate, device
    close_vulkan()  # before the next policy is compiled
    return losses


def _check_examples(program: Program) -> None:
    """Bytes that stay on the device become the numbers that the host makes of them."""
    data = bind({"image": np.arange(40 * WIDTH).reshape(40, WIDTH).astype(np.uint8)}, program.manifest.batch)
    examples, numbers = Examples(program, data), np.arange(40, 8, -1) - 1
    assert examples.is_resident
    (spec,) = program.batch_fields(EVAL_STEP).values()
    taken = program.download(spec, examples.batch(numbers, function=EVAL_STEP)[spec.name])
    np.testing.assert_array_equal(taken, data.take(numbers)["image"], strict=True)


# Adam takes half the time to compile; SONew under the other policies is compared in test_precision.
RUNS = {policy: "tridiag-sonew" if policy in ("f32", "bf16") else "adam" for policy in POLICIES}


@pytest.mark.parametrize(("policy", "optimizer"), [*RUNS.items(), ("f32", "band-sonew")])
def test_twenty_steps_agree(policy: str, optimizer: str, tmp_path: Path) -> None:
    if not any(found.name == "vulkan" for found in list_devices()):
        pytest.skip("there is no Vulkan device here")
    path = tmp_path / "all"
    # The statistics of a few steps are singular. With less damping, rounding alone would decide which edges are
    # removed.
    settings = optimizer_settings(optimizer, eps=1e-2 if optimizer != "adam" else None)
    manifest = compile_training(
        _loss, _init, settings, BATCH, output=path, targets=tuple(DEVICES), precision=policy, check=False
    )
    losses = {}
    for target in manifest.targets:
        only = shutil.copytree(path, tmp_path / target.name)
        (only / "manifest.json").write_text(dataclasses.replace(manifest, targets=(target,)).to_json())
        losses[target.name] = _losses(only, DEVICES[target.name])
    assert losses["cpu"][-1] < 0.9 * losses["cpu"][0]
    tolerance = 1e-4 if policy == "f32" else 2e-2
    for name in ("vmvx", "vulkan"):
        np.testing.assert_allclose(losses[name], losses["cpu"], rtol=tolerance, err_msg=name)
