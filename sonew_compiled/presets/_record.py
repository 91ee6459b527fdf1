"""The record of an optimizer, from which its options, checks, searches and documents are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sonew_compiled.setting import Setting

Value = float | str | None
"""The value of a setting; None leaves the choice to the optimizer."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameter(Setting):
    """A setting of one optimizer.

    Attributes:
      default: the value that ships.
      at_run_time: whether a step can be compiled to take it as an input; `sonew tune` searches these settings.
      search: the factor by which the search goes up and down from the shipped value.
      from_one: whether the factor scales the distance from 1, so that 0.9 and 0.99 are as far apart as 0.99 and 0.999.
    """

    default: Value
    at_run_time: bool = False
    search: float = 1.0
    from_one: bool = False


@dataclass(frozen=True, kw_only=True)
class LongPreset:
    """Settings of an optimizer that do better in a long training than those that ship for 20 epochs.

    Attributes:
      epochs: the length of the runs in which they were found. Runs take them from so many epochs on.
      model: the model of those runs.
      schedule: the schedule of those runs.
      learning_rate: the peak of the schedule.
      values: the settings that differ.
    """

    epochs: int
    learning_rate: float
    schedule: str
    values: Mapping[str, Value]
    model: str = "autoencoder"


def long_presets(rates: Mapping[str, float], **values: Value) -> Mapping[str, LongPreset]:
    """The presets for 100 epochs under schedule `paper`, by the precision policies for which rates are known."""
    settings = MappingProxyType(values)
    return MappingProxyType(
        {
            precision: LongPreset(epochs=100, learning_rate=rate, schedule="paper", values=settings)
            for precision, rate in rates.items()
        }
    )


@dataclass(frozen=True, kw_only=True)
class Start:
    """Settings from which `sonew tune` starts beside those that ship.

    Attributes:
      learning_rate: the peak of the schedule.
      values: the settings that differ.
    """

    learning_rate: float
    values: Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class OptimizerRecord:
    """An optimizer: its factory, its settings and its needs.

    Attributes:
      name: its name on the command line.
      factory: `module:function` of the function that makes it. It is called with the learning rate, with each setting
        by name and, if the optimizer needs them, with `loss=` and `batch=`. It is imported only for the call, so that a
        device's command line never loads JAX.
      learning_rate: the peak of the schedule that ships.
      rates: other peaks, by precision policy.
      long: other settings for long training, by the precision policy under which they were found.
      starts: other settings from which a search starts, for a form of the optimizer whose rate is of another size.
      settings: the settings that a user can choose.
      fixed: arguments of the factory that a user cannot choose; the manifest lists them beside the settings.
      needs_loss: whether it differentiates the model's loss itself.
      needs_layers: whether it looks for the dense layers in that loss, and so needs the shapes of a batch.
      needs_float32_state: whether its state cannot be kept in 16 bits.
      grafted: whether a tensor's direction is rescaled by its norm, unless `grafting` is "none". The norm is known only
        after the whole tensor has been read, so the update reads the state twice.
      paper: the citation.
      state: the size of its state, in numbers for each parameter.
      limits: the models for which it works.
    """

    name: str
    factory: str
    learning_rate: float
    paper: str
    state: str
    rates: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    long: Mapping[str, LongPreset] = field(default_factory=lambda: MappingProxyType({}))
    starts: tuple[Start, ...] = ()
    settings: tuple[Hyperparameter, ...] = ()
    fixed: Mapping[str, Value] = field(default_factory=lambda: MappingProxyType({}))
    needs_loss: bool = False
    needs_layers: bool = False
    needs_float32_state: bool = False
    grafted: bool = False
    limits: str = ""

    def setting(self, name: str) -> Hyperparameter | None:
        """The setting of that name; None if a user cannot choose it for this optimizer."""
        return next((setting for setting in self.settings if setting.name == name), None)

    @property
    def values(self) -> dict[str, Value]:
        """The arguments of the factory: the shipped settings and the fixed arguments."""
        return {**{setting.name: setting.default for setting in self.settings}, **self.fixed}

    def grafts(self, values: Mapping[str, Value]) -> bool:
        """Whether a tensor's direction is rescaled by its norm under these settings."""
        return self.grafted and values.get("grafting") != "none"

    def rate_under(self, precision: str) -> float:
        """The learning rate that ships for a precision policy."""
        return self.rates.get(precision, self.learning_rate)
