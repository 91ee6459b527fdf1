"""A worker can be lost in the evaluation that ends an epoch. The resumed run ends it, and counts no loss twice."""

import dataclasses
from pathlib import Path

import pytest

from sonew_compiled.runtime import (
    Dataset,
    Device,
    TrainSettings,
    load_checkpoint,
    open_bundle,
    read_metrics,
    resumed_settings,
    save_checkpoint,
    train,
)

SETTINGS = TrainSettings(epochs=4, learning_rate=0.05, schedule="paper", seed=7)  # of 10 steps each


@pytest.mark.parametrize("step", [20, 40])
def test_an_epoch_that_did_not_end_ends_in_the_resumed_run(
    tiny_bundle: Path, tiny_data: Dataset, cpu: Device, step: int, tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle)
    whole, folder, losses = tmp_path / "whole", tmp_path / "run", [0.0]
    expected = train(bundle, tiny_data, SETTINGS, cpu, output=whole)
    stopped = dataclasses.replace(SETTINGS, max_steps=step)
    train(bundle, tiny_data, stopped, cpu, output=folder, on_step=lambda _, loss: losses.append(loss))
    # What is left of a loss in the evaluation: no line of the epoch, and the sum of its losses in the checkpoint.
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    metrics.write_text("".join(lines[:-1]), encoding="utf-8")
    saved = load_checkpoint(folder / f"step-{step:08d}.safetensors", bundle.manifest)
    settings = {key: value for key, value in saved.settings.items() if key not in ("step", "sha256")}
    before = load_checkpoint(folder / f"step-{step - 10:08d}.safetensors", bundle.manifest)
    settings |= {key: before.settings[key] for key in ("best_test_loss", "best_step", "evaluations_since_best")}
    settings["epoch_loss_sum"] = repr(sum(losses[step - 9 : step + 1]))
    save_checkpoint(folder, dataclasses.replace(saved, settings=settings), bundle.manifest)
    result = train(bundle, tiny_data, resumed_settings(folder), cpu, output=folder, resume=folder)
    assert result.checkpoint.read_bytes() == expected.checkpoint.read_bytes()
    rows = [read_metrics(each) for each in (whole, folder)]
    for key in ("step", "epoch", "loss", "learning_rate"):
        assert [row[key] for row in rows[0]] == [row[key] for row in rows[1]]
