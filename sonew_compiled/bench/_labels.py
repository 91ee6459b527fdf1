"""The labels of runs that would have the same one, told apart by their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def told_apart(labels: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """For each label, in words, the settings that are not the same wherever the label is; none if it is there once.

    Args:
      labels: the labels.
      settings: the settings of the run of each, with those of its optimizer in `optimizer`.
    """
    flat = [each | each["optimizer"] for each in settings]
    words = []
    for label, own in zip(labels, flat, strict=True):
        alike = [other for same, other in zip(labels, flat, strict=True) if same == label]
        differ = (name for name in own if any(other.get(name) != own[name] for other in alike))
        words.append(tuple(f"{name.replace('_', ' ')} {_shown(own[name])}" for name in differ if name != "optimizer"))
    return words


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
