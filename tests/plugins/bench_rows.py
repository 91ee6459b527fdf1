"""Rows of a benchmark that nobody measured."""

from __future__ import annotations

from typing import Any

from sonew_compiled.presets import optimizer_settings

MACHINE = {
    "cpu": "A Processor",
    "cpu_features": ["avx2"],
    "threads": 2,
    "platform": "Linux",
    "device": "local-task",
    "device_description": "the CPU",
    "driver": "local",
}


def row(
    optimizer: str = "adam",
    *,
    step: float | None = 0.02,
    machine: str = "aaaa",
    host: str | None = "laptop",
    **other: Any,
) -> dict[str, Any]:
    """A row of a machine, with a steady step of so many seconds."""
    asked = {
        "model": "autoencoder-small",
        "optimizer": optimizer_settings(optimizer).to_json(),
        "precision": "f32",
        "target": "cpu",
        "device": "local-task",
        "batch_size": 20,
        "seed": 0,
    }
    return {
        "schema": 2,
        "kind": "train",
        "settings": asked | {key: other.pop(key) for key in list(other) if key in asked},
        "machine": MACHINE,
        "machine_id": machine,
        "host": host,
        "date": "2026-11-29T12:00:00Z",
        "versions": {"jax": "0.10.2"},
        "error": None,
        "step_p50_seconds": step,
        "train_loss": 1.5,
        "curve": [{"epoch": n, "step": 9 * n, "seconds": 9 * n * (step or 0.0), "loss": 3.0 / n} for n in (1, 2, 3)],
        **other,
    }
