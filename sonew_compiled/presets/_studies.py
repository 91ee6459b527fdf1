"""The best settings of the studies of 20 epochs, from which a search on the same model starts beside the preset.

They are the best trials in `docs/results/tuned-20.jsonl`, where these differ from what ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_MODEL, _PRECISION = "autoencoder", "f32"
_BEST: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "sgd": {"learning_rate": 0.0100523},
        "momentum": {"learning_rate": 0.00289035, "b1": 0.720584},
        "nesterov": {"learning_rate": 0.00481866, "b1": 0.601695},
        "adagrad": {"learning_rate": 0.00723829, "eps": 1.15574e-05},
        "rmsprop": {"learning_rate": 0.000877589, "b2": 0.970585, "eps": 1.41405e-05},
        "adam": {"learning_rate": 0.000692616, "b1": 0.716581, "b2": 0.975859, "eps": 7.10759e-06},
        "diag-sonew": {"learning_rate": 0.00432953, "b1": 0.874278, "b2": 0.877852, "eps": 1.04229e-05},
        "tridiag-sonew": {"learning_rate": 0.0112925, "b1": 0.667864, "b2": 0.830837, "eps": 1.08816e-06},
        "band-sonew": {"learning_rate": 0.0112925, "b1": 0.667864, "b2": 0.830837, "eps": 1.08816e-06},
        "shampoo": {"learning_rate": 0.00596891, "b1": 0.667864, "b2": 0.830837, "eps": 1.08816e-06},
        "rfdson": {"learning_rate": 0.000789122, "b1": 0.760314, "b2": 0.988552, "eps": 0.913621},
        "adamw": {"learning_rate": 0.000666667, "b1": 0.9, "b2": 0.99, "eps": 1e-06},
        "schedule-free-adamw": {"learning_rate": 0.000666667, "b1": 0.9, "b2": 0.99, "eps": 1e-06},
        "adam-8bit": {"learning_rate": 0.000565219, "b1": 0.688792, "b2": 0.995947, "eps": 4.41291e-06},
        "kbfgs": {"learning_rate": 0.475271, "b1": 0.966652, "b2": 0.833781, "eps": 0.584911},
    }
)


def best_of_studies(name: str, *, model: str, precision: str) -> Mapping[str, float]:
    """The learning rate and the settings that were best for an optimizer, by name; none on another model or policy."""
    return _BEST.get(name, {}) if (model, precision) == (_MODEL, _PRECISION) else {}
