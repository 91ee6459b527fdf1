"""What a study searches: the forms of an optimizer, and for each its numbers and the trials to begin with.

A form is the optimizer with all settings that are compiled in. The numbers of two forms may be of other sizes: without
grafting SONew's learning rate is some 300 times smaller. So each form is searched by itself, from settings of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sonew_compiled.bench._tune_settings import TuneSettings
from sonew_compiled.errors import UsageError
from sonew_compiled.presets import (
    OptimizerSettings,
    Value,
    best_of_studies,
    optimizer_settings,
    record_of,
    runtime_settings_of,
)
from sonew_compiled.setting import flag_of

RATE = "learning_rate"
RATE_FACTOR = 10.0
"""The factor by which the search goes up and down from the learning rate that ships; other settings have their own."""

# The learning rate matters most, so among the first trials are two with the center's settings and another rate.
_OTHER_RATES = (3.0, 1 / 3)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A number to search, on a logarithmic scale.

    Attributes:
      name: the name of the setting, or `learning_rate`.
      center: the center of the search.
      factor: the factor by which the search goes up and down.
      from_one: whether the distance from 1 is searched in place of the number.
      least: the smallest value, or distance, to try.
      most: the largest one.
      known: parameters of trials to begin with, up to which the range is widened.
    """

    name: str
    center: float
    factor: float
    from_one: bool = False
    least: float = 0.0
    most: float = math.inf
    known: tuple[float, ...] = ()

    def parameter(self, value: float) -> float:
        """The parameter of a trial that has this value."""
        return 1 - value if self.from_one else value

    def value(self, parameter: float) -> float:
        """The setting's value for a trial's parameter, which is rounded to six digits."""
        rounded = float(f"{parameter:.6g}")
        return float(f"{1 - rounded:.15g}") if self.from_one else rounded

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest parameter of a trial."""
        shipped = self.parameter(self.center)
        return min(max(shipped / self.factor, self.least), *self.known), max(
            min(shipped * self.factor, self.most), *self.known
        )

    def range_under(self, limit: float) -> tuple[float, float]:
        """The bounds, where `limit` is the largest decay with which stored statistics still fall."""
        least, most = self.bounds
        if self.from_one and math.isfinite(limit):
            least = max(least, 1.001 * (1 - limit))  # a little less, since settings are rounded
        return least, most


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form of the optimizer, and its search.

    Attributes:
      optimizer: its settings at the center of the search.
      axes: the numbers to search.
      known: parameters of the trials that are trained to the end, with which the search begins.
      others: parameters of the trials after them.
      told: the settings that tell this form from the other ones of the study.
    """

    optimizer: OptimizerSettings
    axes: tuple[Axis, ...]
    known: tuple[dict[str, float], ...]
    others: tuple[dict[str, float], ...]
    told: Mapping[str, Value]

    @property
    def first(self) -> tuple[dict[str, float], ...]:
        """Parameters of all trials with which the search begins."""
        return (*self.known, *self.others)

    def values_of(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """A trial's parameters as the optimizer's settings."""
        return {axis.name: axis.value(parameters[axis.name]) for axis in self.axes if axis.name in parameters}

    def settings_of(self, parameters: Mapping[str, float]) -> dict[str, Value]:
        """All settings of a trial: those that are compiled in, but for None, and those that are searched."""
        compiled_in = {name: value for name, value in _compiled_in(self.optimizer) if value is not None}
        return {**compiled_in, **self.values_of(parameters)}

    def to_json(self) -> dict[str, Any]:
        """The form and the trials to begin with, to compare a study that is resumed."""
        return {"optimizer": self.optimizer.to_json(), "first": list(map(self.values_of, self.first))}


def forms_of(settings: TuneSettings) -> tuple[Form, ...]:
    """The forms to search. The first has the settings that ship, unless others are given.

    A form that the record starts from beside them is left out if it grafts and the given settings do not, or the
    reverse; and if a number is given, since that is the center of one form's search.

    Raises:
      UsageError: the optimizer does not take a setting or a value, or a trial to begin with contradicts the settings.
    """
    centers = _centers(settings)
    wanted = [(center, _values(center)) for center in centers]
    if not _is_number_given(settings):
        best = best_of_studies(settings.optimizer, model=settings.model, precision=settings.precision)
        if best and (first := centers[0]).name == settings.optimizer and _is_shipped_form(first, settings):
            wanted.append((first, {**_values(first), **best}))
    wanted += [_asked(settings, each, centers) for each in settings.enqueue]

    grouped: dict[tuple[tuple[str, Value], ...], tuple[OptimizerSettings, list[dict[str, float]]]] = {}
    for optimizer, values in wanted:
        grouped.setdefault(_compiled_in(optimizer), (optimizer, []))[1].append(values)
    keys = [dict(key) for key in grouped]
    telling = [name for name in keys[0] if len({key[name] for key in keys}) > 1]
    return tuple(
        _form(center, known, told={name: center.values[name] for name in telling}) for center, known in grouped.values()
    )


def preset_of(settings: TuneSettings) -> OptimizerSettings:
    """The optimizer with its settings at the center of the first form's search, and those that are fixed."""
    return _centers(settings)[0]


def searched(form: Form) -> dict[str, tuple[float, float]]:
    """The range of each number that is searched."""
    ends = {axis.name: sorted(axis.value(end) for end in axis.bounds) for axis in form.axes}
    return {name: (least, most) for name, (least, most) in ends.items()}


def _is_number_given(settings: TuneSettings) -> bool:
    return settings.learning_rate is not None or any(
        name in settings.settings for name in runtime_settings_of(settings.optimizer)
    )


def _centers(settings: TuneSettings) -> list[OptimizerSettings]:
    """The center of each form's search, from the record and the given settings."""
    shipped = optimizer_settings(settings.optimizer, precision=settings.precision)
    record = record_of(settings.optimizer)
    starts = [
        shipped,
        *(replace(shipped, learning_rate=each.learning_rate, values=each.values) for each in record.starts),
    ]

    def values(start: OptimizerSettings) -> dict[str, Value]:
        return {**start.values, **settings.settings}

    alike = [each for each in starts if record.grafts(values(each)) == record.grafts(each.values)] or [shipped]
    centers = [
        replace(
            each,
            learning_rate=each.learning_rate if settings.learning_rate is None else settings.learning_rate,
            values=values(each),
        )
        for each in alike
    ]
    return centers[:1] if _is_number_given(settings) else centers


def _is_shipped_form(center: OptimizerSettings, settings: TuneSettings) -> bool:
    return _compiled_in(center) == _compiled_in(optimizer_settings(settings.optimizer, precision=settings.precision))


def _asked(
    settings: TuneSettings, asked: Mapping[str, Value], centers: Sequence[OptimizerSettings]
) -> tuple[OptimizerSettings, dict[str, float]]:
    """The form and the numbers of a trial to begin with. What it leaves out is that of a form that grafts as it does.

    Raises:
      UsageError: the optimizer does not take it, or another value of a setting is given for all trials.
    """
    record = record_of(settings.optimizer)
    given = {name: value for name, value in asked.items() if name != RATE}
    for name, value in given.items():
        setting = record.setting(name)
        if setting is not None and not setting.at_run_time and settings.settings.get(name, value) != value:
            raise UsageError(
                f"--enqueue has {name}={value}, but {flag_of(name)} {settings.settings[name]} is given for all trials; "
                "leave one of them out"
            )
    like = [each for each in centers if record.grafts({**each.values, **given}) == record.grafts(each.values)]
    base = (like or centers)[0]
    rate = asked.get(RATE, base.learning_rate)
    if not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise UsageError(f"--enqueue has {RATE}={rate}; give a positive number, such as 1e-3")
    optimizer = replace(base, learning_rate=float(rate), values={**base.values, **given})
    return optimizer, _values(optimizer)


def _values(optimizer: OptimizerSettings) -> dict[str, float]:
    """The numbers that are searched, as the optimizer has them."""
    names = runtime_settings_of(optimizer.name)
    return {RATE: optimizer.learning_rate, **{name: optimizer.number(name) for name in names}}


def _compiled_in(optimizer: OptimizerSettings) -> tuple[tuple[str, Value], ...]:
    """The settings that are compiled in, by which forms differ."""
    names = {setting.name for setting in record_of(optimizer.name).settings if not setting.at_run_time}
    return tuple((name, value) for name, value in optimizer.values.items() if name in names)


def _form(center: OptimizerSettings, known: Sequence[Mapping[str, float]], *, told: Mapping[str, Value]) -> Form:
    axes = _axes(center, known)
    begun = [{axis.name: axis.parameter(each[axis.name]) for axis in axes} for each in known]
    others = [{**begun[0], RATE: begun[0][RATE] * factor} for factor in _OTHER_RATES]
    form = Form(optimizer=center, axes=axes, known=(), others=(), told=told)
    # Of trials with the same values, the first.
    first: list[dict[str, float]] = []
    for one in (*begun, *others):
        if form.values_of(one) not in map(form.values_of, first):
            first.append(one)
    to_the_end = [one for one in first if one in begun]
    return replace(form, known=tuple(to_the_end), others=tuple(first[len(to_the_end) :]))


def _axes(center: OptimizerSettings, known: Sequence[Mapping[str, float]]) -> tuple[Axis, ...]:
    """The numbers to search: the learning rate, and every setting that a step takes at run time."""
    axes = [Axis(name=RATE, center=center.learning_rate, factor=RATE_FACTOR)]
    for setting in record_of(center.name).settings:
        if setting.at_run_time:
            axes.append(
                Axis(
                    name=setting.name,
                    center=center.number(setting.name),
                    factor=setting.search,
                    from_one=setting.from_one,
                    # The range ends short of the bounds, because rounding could take a value over one.
                    least=1.001 * (1 - setting.most) if setting.from_one else setting.least,
                    most=1 - setting.least if setting.from_one else 0.99 * setting.most,
                )
            )
    return tuple(replace(axis, known=tuple(axis.parameter(each[axis.name]) for each in known)) for axis in axes)
