"""`sonew bench --preset speed`: the table of ratios, and the command that prints it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.bench._jax import JaxTraining
from sonew_compiled.bench._machine import threads
from sonew_compiled.bench._steps import compile_step
from sonew_compiled.bench.models import BATCHES, goals_of, sizes_of
from sonew_compiled.bench.speed import GOALS, SpeedSettings, _start_seconds, measure_speed
from sonew_compiled.bench.workers import GOALS as WORKER_GOALS
from sonew_compiled.errors import SonewError
from sonew_compiled.models import load_model
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import Device, Program, TrainingState, open_bundle

Sonew = Callable[..., Any]
KEYS = (
    *("step_f32", "step_bf16", "step_bf16_over_f32"),
    *("step_bf16-mixed_over_f32", "step_bf16-sr_over_f32", "step_bf16-pure_over_f32"),
    *("step_over_adam", "shampoo_step_over_adam"),
    *("update_f32", "update_bandwidth_share", "update_bf16_over_f32", "band4_over_tridiag"),
    *("tridiag_over_adam", "loop_overhead", "loop_overhead_bf16", "growth"),
    *("compile_seconds", "compile_seconds_bf16", "start_seconds"),
)


@pytest.fixture
def folder(small: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working directory, with data in it."""
    shutil.copy(small.data, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# One matrix, so that its ten compilations are short.
ONE_MATRIX = """
import jax
import jax.numpy as jnp

from sonew_compiled import Model


def loss(params, batch):
    return jnp.mean(jnp.sum((batch["image"] @ params["w"] - batch["image"]) ** 2, axis=-1))


def batch(size):
    return {"image": jax.ShapeDtypeStruct((size, 36), jnp.float32)}


model = Model(init=lambda key: {"w": jnp.zeros((36, 36))}, loss=loss, batch=batch)
"""


def test_the_speed_table(
    folder: Path, task_here: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sonew_compiled.bench.speed.call_apart", task_here)
    (folder / "one_matrix.py").write_text(ONE_MATRIX)
    result = measure_speed(
        SpeedSettings(
            model="one_matrix:model", batch_size=20, pairs=1, growth_sides=(4, 8), compiles=2, starts=1, data="data.npz"
        )
    )
    assert tuple(result["ratios"]) == KEYS == tuple(goal.key for goal in GOALS)
    assert all(math.isfinite(value) for value in result["ratios"].values())
    assert all(value > 0 for key, value in result["ratios"].items() if not key.startswith("loop_overhead"))
    assert len(result["measurements"]["step_f32"]["per_pair"]) == 1
    assert len(result["measurements"]["loop_overhead"]["per_pair"]) == 4
    apart = result["measurements"]["growth"]["core_round_trip_ns"]
    assert apart == [None, None] if threads() < 2 else all(10 < ns < 1e7 for ns in apart)
    assert len(result["measurements"]["compile_seconds"]["each"]) == 2
    assert result["measurements"]["update_bandwidth_share"]["update_bytes"] == 48 * 36 * 36 + 12


def test_the_speed_command(folder: Path, sonew: Sonew, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SpeedSettings] = []
    units = ["vdpbf16ps"]

    def measured(settings: SpeedSettings, *, host: str | None, say: Any) -> dict[str, Any]:
        assert host == "laptop"
        asked.append(settings)
        return {
            "ratios": {goal.key: 2.5 if goal.must is None else goal.must for goal in GOALS},
            "measurements": {
                "step_f32": {"core_round_trip_ns": [300, 1000]},
                "growth": {"core_round_trip_ns": [None] * 2},
            },
            "units": units,
        }

    monkeypatch.setattr("sonew_compiled.bench.speed.measure_speed", measured)
    ended = sonew("bench", "--preset", "speed", "--host", "laptop", "-o", "speed", "--json")
    assert tuple(ended.json["ratios"]) == KEYS
    assert asked == [SpeedSettings()]
    assert asked[0].pairs >= 20
    ended = sonew("bench", "--preset", "speed", "--host", "laptop", "-o", "speed", "--pairs", 3)
    assert ended.out.count("| yes |") == len(KEYS) - 1
    assert "Shampoo every 20 steps ÷ Adam, both IREE | 2.5 |  |  |  |" in ended.out
    assert ended.out.endswith("The first two processors answered each other in 300 to 1000 ns.\n")
    assert (folder / "speed/speed.md").read_text(encoding="utf-8") == ended.out
    assert "bf16 ÷ f32, both IREE | 0.62 | ≤ 0.62 | ≤ 0.5 | yes |" in ended.out
    units.clear()
    ended = sonew("bench", "--preset", "speed", "--host", "laptop", "-o", "speed", "--pairs", 3)
    assert "bf16 ÷ f32, both IREE | 0.62 | ≤ 1.1 | ≤ 1 | yes |" in ended.out
    assert "bf16-mixed ÷ f32, both IREE | 0.66 |  |  |  |" in ended.out


def test_start_says_why_it_did_not(folder: Path) -> None:
    with pytest.raises(SonewError, match="no bundle"):
        _start_seconds(folder / "nowhere", "data.npz")


def test_the_table_of_workers(folder: Path, sonew: Sonew) -> None:
    pytest.importorskip("mpi4py", reason="there is no MPI: pip install -e '.[mpi]'")
    (folder / "one_matrix.py").write_text(ONE_MATRIX)
    words = ("bench", "--preset", "workers", "--model", "one_matrix:model", "--data", "data.npz", "--pairs", 2)
    odd = sonew(*words, "--batch-size", 15)
    assert (odd.code, "two workers cannot share" in odd.err) == (2, True)
    ended = sonew(*words, "--batch-size", 20, "--json")
    assert ended.code == 0, ended.err
    assert tuple(ended.json["ratios"]) == tuple(goal.key for goal in WORKER_GOALS)
    assert all(math.isfinite(value) and value > 0 for value in ended.json["ratios"].values())
    measured = ended.json["measurements"]
    of_state = measured.pop("shard_state_2")
    assert all(len(each["per_pair"]) == 2 for each in measured.values())
    # One matrix, with momentum and two statistics in float32, and the count of steps, cannot be divided.
    assert of_state == {"ratio": 1.0, "held_bytes": [4 * 36 * 36 * 4 + 4] * 2, "whole_bytes": 4 * 36 * 36 * 4 + 4}
    assert Path("sonew-bench/workers.md").read_text().count("| yes |") <= len(WORKER_GOALS)


# It draws, keeps a state, and has no mean over examples.
NOISY = """
def noisy_loss(params, batch, *, rng, state):
    noise = jax.random.normal(rng, batch["image"].shape)
    return loss(params, {"image": batch["image"] + state["size"] * noise}), {"size": 0.5 * state["size"]}


noisy = Model(
    init=lambda key: ({"w": jnp.zeros((36, 36))}, {"size": jnp.ones(())}),
    loss=noisy_loss,
    batch=batch,
    evaluation_draws=True,
    per_example=False,
)
"""


def test_the_table_of_models(folder: Path, sonew: Sonew) -> None:
    (folder / "two_models.py").write_text(ONE_MATRIX + NOISY)
    models = ("two_models:model", "two_models:noisy")
    words = ("bench", "--preset", "models", *("--model", models[0], "--model", models[1]))
    planned = sonew(*words, "--dry-run", "--json").json["settings"]
    assert planned["model"] == {"value": [*models], "source": "command line"}
    assert planned["batch-size"]["value"] == [100, 100]
    ended = sonew(*words, "--pairs", 2, "--batch-size", 20, "--json")
    assert ended.code == 0, ended.err
    assert tuple(ended.json["ratios"]) == (*models, *(f"{name}_compile_seconds" for name in models))
    assert all(math.isfinite(value) and value > 0 for value in ended.json["ratios"].values())
    for name in models:
        assert ended.json["measurements"][name]["examples"] == 20
        assert len(ended.json["measurements"][name]["per_pair"]) == 2
    table = Path("sonew-bench/models.md").read_text()
    assert "| step of two_models:noisy, 20 examples, Adam, f32, IREE ÷ XLA |" in table
    assert {goal.key for goal in goals_of(BATCHES)} == {*BATCHES, *(f"{name}_compile_seconds" for name in BATCHES)}
    assert sizes_of(["resnet18", *models], None) == {"resnet18": 32, models[0]: 100, models[1]: 100}
    (folder / "sonew.toml").write_text('[bench]\nmodel = "two_models:noisy"\n')
    planned = sonew("--config", "sonew.toml", "bench", "--preset", "models", "--dry-run", "--json").json["settings"]
    assert planned["model"] == {"value": [models[1]], "source": "sonew.toml"}
    refused = sonew("bench", "--preset", "speed", "--model", models[0], "--model", models[1])
    assert (refused.code, "--preset speed measures one model; give one" in refused.err) == (2, True)


def test_the_step_of_jax_draws_and_keeps_what_the_compiled_one_does(folder: Path, cpu: Device) -> None:
    (folder / "two_models.py").write_text(ONE_MATRIX + NOISY)
    model = load_model("two_models:noisy")
    compile_step(SpeedSettings(model="two_models:noisy", batch_size=20), "adam", folder / "noisy")
    state = TrainingState.initial(Program.load(open_bundle(folder / "noisy"), cpu), seed=3)
    training = JaxTraining(model, optimizer_settings("adam"))
    beside = training.init(3)
    batch = {"image": np.random.default_rng(0).random((20, 36), np.float32)}
    for _ in range(3):
        beside, expected = training.step(beside, batch, 0.05)
        assert state.step(batch, 0.05) == pytest.approx(float(expected), rel=1e-5)
