"""The types of options that are settings, with the range of each."""

from __future__ import annotations

import math
from typing import Any

import click

from sonew_compiled.setting import Setting


class _Number(click.ParamType):  # type: ignore[type-arg]  # not generic in older releases
    """A number in the range of a setting."""

    name = "number"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def __repr__(self) -> str:
        return f"number: {self._setting.accepted}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; give {self._setting.accepted}", param, ctx)
        if not self._setting.accepts(number):
            self.fail(f"{value!r} is not accepted; give {self._setting.accepted}", param, ctx)
        return number


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "integer"


def type_of(setting: Setting) -> click.ParamType:  # type: ignore[type-arg]  # not generic in older releases
    """The click type of a setting's value."""
    if setting.kind is str:
        return click.Choice(setting.choices)
    if setting.kind is float:
        return _Number(setting)
    least, most = (None if math.isinf(bound) else int(bound) for bound in (setting.least, setting.most))
    return Whole(min=least, max=most)
