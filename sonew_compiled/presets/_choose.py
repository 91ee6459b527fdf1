"""The settings of an optimizer, from its name and the options of a user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sonew_compiled.errors import UsageError
from sonew_compiled.presets import _first_order, _matrix, _of_a_loss, _sonew
from sonew_compiled.presets._record import LongPreset, OptimizerRecord, Value
from sonew_compiled.setting import flag_of

RECORDS: Mapping[str, OptimizerRecord] = MappingProxyType(
    {record.name: record for family in (_sonew, _first_order, _matrix, _of_a_loss) for record in family.RECORDS}
)
"""All records by name, in the order in which documents and `--help` name them."""

OPTIMIZERS = tuple(RECORDS)
DEFAULT_OPTIMIZER = "tridiag-sonew"
PRESETS = ("short", "long")
"""The presets of an optimizer, by length of training."""
SETTINGS = tuple(dict.fromkeys(setting.name for record in RECORDS.values() for setting in record.settings))
"""The names of all settings that some optimizer takes."""

# If an optimizer does not take a setting, the error names others that do, up to this many.
_MOST_OTHERS = 7


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """An optimizer by name, with all settings that are compiled in, and its learning rate.

    Attributes:
      name: one of `OPTIMIZERS`.
      learning_rate: the peak of the schedule; only a default, since the rate is a runtime input.
      values: the settings of its record, by name; one that is left out, or None, has the value that ships.

    Raises:
      UsageError: no such optimizer, a setting that it does not have, or a value out of range.
    """

    name: str
    learning_rate: float
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        record = record_of(self.name)
        given = {key: value for key, value in self.values.items() if value is not None}
        for key, value in given.items():
            setting = record.setting(key)
            if setting is not None:
                setting.check(value)
            elif value != record.fixed.get(key):
                raise UsageError(_not_taken(record, key, value))
        object.__setattr__(self, "values", MappingProxyType({**record.values, **given}))

    def number(self, name: str) -> float:
        """The value of a numeric setting."""
        value = self.values[name]
        assert isinstance(value, int | float), f"{name} is {value!r}"
        return value

    def to_json(self) -> dict[str, Any]:
        """One flat object: the name, the learning rate and the settings, without those that are None."""
        values = {name: value for name, value in self.values.items() if value is not None}
        return {"name": self.name, "learning_rate": self.learning_rate, **values}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> OptimizerSettings:
        """The inverse of `to_json`."""
        values = dict(described)
        return cls(name=values.pop("name"), learning_rate=values.pop("learning_rate"), values=values)


def record_of(name: str) -> OptimizerRecord:
    """The record of an optimizer.

    Raises:
      UsageError: there is no such optimizer.
    """
    if name not in RECORDS:
        raise UsageError(f"unknown optimizer {name!r}; give one of {', '.join(OPTIMIZERS)}")
    return RECORDS[name]


def settings_of(name: str) -> tuple[str, ...]:
    """The settings that a user can choose for an optimizer; the band of diag-sonew and tridiag-sonew is fixed."""
    return tuple(setting.name for setting in record_of(name).settings)


def runtime_settings_of(name: str) -> tuple[str, ...]:
    """The settings of `settings_of` that a compiled step can take at run time."""
    return tuple(setting.name for setting in record_of(name).settings if setting.at_run_time)


def long_preset_of(name: str, precision: str) -> LongPreset:
    """The settings of an optimizer for long training.

    Raises:
      UsageError: it has none, or none for this precision policy.
    """
    found = record_of(name).long
    if not found:
        *others, last = (record.name for record in RECORDS.values() if record.long)
        raise UsageError(
            f"--preset long does not go with {name}, which has one preset for every length of training; leave it out, "
            f"or give --optimizer {', '.join(others)} or {last}"
        )
    if precision not in found:
        raise UsageError(
            f"--preset long of {name} does not go with --precision {precision}; give --precision {' or '.join(found)}, "
            "or --preset short"
        )
    return found[precision]


def preset_for(name: str, *, model: str, precision: str, epochs: int, schedule: str | None = None) -> str:
    """The preset of an optimizer for a training of so many epochs, if a user leaves it and all settings open.

    The long preset was found for one model and schedule, and under each precision policy for itself. Without a
    `schedule` the training takes that of the preset.
    """
    long = record_of(name).long.get(precision)
    return PRESETS[
        long is not None and model == long.model and epochs >= long.epochs and schedule in (None, long.schedule)
    ]


def optimizer_settings(
    name: str = DEFAULT_OPTIMIZER, *, precision: str = "f32", preset: str = PRESETS[0], **settings: Value
) -> OptimizerSettings:
    """The preset of `name` under a precision policy, with the given settings in place of its own.

    Args:
      name: one of `OPTIMIZERS`.
      precision: one of `PRECISIONS`; some optimizers have other learning rates for some policies.
      preset: one of `PRESETS`: "short" has settings for some 20 epochs, and "long" for some 100, where these differ.
      settings: of the optimizer, as docs/reference/optimizers.md lists them; None stands for the value that ships.

    Raises:
      UsageError: there is no such optimizer or preset, it does not take a setting, or a number is out of range.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset is {preset!r}; give one of {', '.join(PRESETS)}")
    if preset == "long":
        long = long_preset_of(name, precision)
        given = {key: value for key, value in settings.items() if value is not None}
        return OptimizerSettings(name=name, learning_rate=long.learning_rate, values={**long.values, **given})
    return OptimizerSettings(name=name, learning_rate=record_of(name).rate_under(precision), values=settings)


def _not_taken(record: OptimizerRecord, key: str, value: object) -> str:
    accepted = ", ".join(setting.flag for setting in record.settings) or "no settings"
    others = [other for other in OPTIMIZERS if key in settings_of(other)]
    instead = f", or give --optimizer {' or '.join(others)}" if 0 < len(others) <= _MOST_OTHERS else ""
    return f"{flag_of(key)} {value} does not go with {record.name}, which takes {accepted}; leave it out{instead}"
