"""Labels of runs, told apart by the settings that they do not name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Labels do not name these. Where they differ, losses are of different things, whatever the optimizers are.
_OF_ALL = ("model", "batch_size", "epochs", "steps", "data", "schedule")


def told_apart(labels: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """For each label, in words, the settings in which runs differ and that it does not name.

    The settings of an optimizer are told where labels are the same, those of the run wherever they differ.

    Args:
      labels: the labels, with the optimizer, the precision, the place and what a step does besides.
      settings: the settings of the run of each, with those of its optimizer in `optimizer`.
    """
    words = []
    for label, own in zip(labels, settings, strict=True):
        alike = [other["optimizer"] for same, other in zip(labels, settings, strict=True) if same == label]
        differ = {
            **{name: own.get(name) for name in _OF_ALL if any(each.get(name) != own.get(name) for each in settings)},
            **{name: value for name, value in own["optimizer"].items() if any(x.get(name) != value for x in alike)},
        }
        given = {name: value for name, value in differ.items() if value is not None}
        words.append(tuple(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in given.items()))
    return words


def optimizer_in_words(optimizer: Mapping[str, Any]) -> str:
    """The settings of an optimizer, without its name."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in optimizer.items() if name != "name")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
