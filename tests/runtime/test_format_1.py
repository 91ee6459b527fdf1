"""Bundles of format version 1, which have no roles, are still read; 0.1.0 wrote `fixtures/format-1.bundle`.

It is a linear model of 3 features and 2 outputs for vmvx, with momentum whose decay is an input of the step.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.contract import Role
from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import Device, Program, TrainingState, evaluate, open_bundle, predict
from sonew_compiled.runtime.data import bind
from sonew_compiled.runtime.manifest import Manifest

BUNDLE = Path(__file__).parent / "fixtures" / "format-1.bundle"
TEXT = (BUNDLE / "manifest.json").read_text(encoding="utf-8")


def test_every_tensor_of_an_old_bundle_has_its_role() -> None:
    manifest = open_bundle(BUNDLE).manifest
    assert json.loads(TEXT)["format_version"] == manifest.format_version == 1
    assert not TEXT.count('"role"')
    roles = {
        name: ([spec.role for spec in function.inputs], [spec.role for spec in function.outputs])
        for name, function in manifest.functions.items()
    }
    state, fields = [Role.OPTIMIZER] * 2 + [Role.PARAMETER] * 2, [Role.BATCH] * 2
    assert roles == {
        "init": ([Role.SEED], state),
        "train_step": ([*state, *fields, Role.LEARNING_RATE, Role.SETTING], [*state, Role.LOSS]),
        "eval_step": ([Role.PARAMETER] * 2 + fields, [Role.LOSS]),
        "predict": ([Role.PARAMETER] * 2 + [Role.BATCH], [Role.PREDICTION]),
    }
    assert [spec.name for spec in manifest.parameters] == ["params/bias", "params/kernel"]
    assert [spec.name for spec in manifest.batch] == ["x", "y"]
    assert manifest.runtime_settings == ("b1",)


def test_an_old_bundle_trains(cpu: Device) -> None:
    """It is compared with gradient descent with momentum in float64."""
    program = Program.load(open_bundle(BUNDLE), cpu)
    rng = np.random.default_rng(0)
    batch = {"x": rng.standard_normal((4, 3), np.float32), "y": rng.standard_normal((4, 2), np.float32)}
    state = TrainingState.initial(program, seed=3)
    state.use({"b1": 0.5})
    values = {name: array.astype(np.float64) for name, array in state.parameters().items()}
    momenta = {name: np.zeros_like(value) for name, value in values.items()}
    rate = cpu.upload(np.array(0.1, np.float32))
    for _ in range(5):
        wrong = batch["x"] @ values["params/kernel"] + values["params/bias"] - batch["y"]
        assert state.step(program.upload_batch(batch), rate) == pytest.approx(np.mean(wrong**2), rel=1e-5)
        slope = 2 * wrong / wrong.size
        for name, gradient in {"params/kernel": batch["x"].T @ slope, "params/bias": slope.sum(axis=0)}.items():
            momenta[name] = 0.5 * momenta[name] + gradient
            values[name] = values[name] - 0.1 * momenta[name]
    for name, array in state.parameters().items():
        np.testing.assert_allclose(array, values[name], rtol=1e-5, atol=1e-6)
    predicted = batch["x"] @ values["params/kernel"] + values["params/bias"]
    np.testing.assert_allclose(predict(program, state.buffers, batch), predicted, rtol=1e-5, atol=1e-5)
    mean = evaluate(program, state.buffers, bind(batch, program.manifest.batch))
    assert mean == pytest.approx(np.mean((predicted - batch["y"]) ** 2), rel=1e-5)


def changed(change: Any) -> Manifest:
    raw = json.loads(TEXT)
    change(raw)
    return Manifest.from_json(json.dumps(raw), source="manifest.json")


def test_what_a_pass_has_added_to_the_state_is_the_optimizers() -> None:
    scale = {"name": "precision/loss_scale", "shape": [], "dtype": "float32"}

    def add(raw: Any) -> None:
        functions = raw["functions"]
        for tensors in (functions["init"]["outputs"], *functions["train_step"].values()):
            tensors.append(scale)

    assert {spec.name: spec.role for spec in changed(add).state}["precision/loss_scale"] == Role.OPTIMIZER


def test_a_bundle_of_this_format_must_say_the_roles() -> None:
    with pytest.raises(SonewError, match="lacks or misspells a field"):
        changed(lambda raw: raw.update(format_version=2))


def test_functions_that_are_none_are_refused_in_the_old_format_too() -> None:
    for nonsense in ([], {"init": []}, {"init": {"outputs": 3}}):
        with pytest.raises(SonewError, match="lacks or misspells a field"):
            changed(lambda raw, nonsense=nonsense: raw.update(functions=nonsense))
    with pytest.raises(SonewError, match="there is no function init"):
        changed(lambda raw: raw.update(functions={}))
