"""What the project knows of an optimizer: a record, from which options, checks, searches and documents are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sonew_compiled.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Hyperparameter(Setting):
    """A setting of one optimizer.

    Attributes:
      default: the value that ships.
      at_run_time: whether a compiled step can take it as an input, if it is traced so; `sonew tune` searches these.
      search: how far from the shipped value the search goes: up and down by this factor.
      from_one: whether the factor is of the distance from 1, by which 0.9 and 0.99 are as far apart as 0.99 and 0.999.
    """

    default: float
    at_run_time: bool = False
    search: float = 1.0
    from_one: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimizerRecord:
    """An optimizer by name.

    Attributes:
      name: on the command line.
      factory: `module:function` of the function that makes it. It is called with the learning rate, with each setting
        by name, and with what the optimizer needs: `loss=`, `batch=`. It is imported only when it is called, so that a
        device's command line never loads JAX.
      learning_rate: the peak of the schedule that ships.
      rates: peaks for the precision policies that need another.
      settings: what a user can choose.
      fixed: arguments of the factory that a user cannot choose, and that the manifest has beside the settings.
      needs_loss: whether it differentiates the model's loss itself.
      needs_layers: whether it looks for the dense layers in that loss, for batches of some shape.
      needs_float32_state: whether its state cannot be kept in 16 bits.
      grafted: whether a tensor's direction is rescaled by its norm, which is known only once the whole tensor was read:
        the update then reads its state twice.
      paper: the citation.
      state: what it keeps, in numbers a parameter.
      limits: what it cannot do.
    """

    name: str
    factory: str
    learning_rate: float
    paper: str
    state: str
    rates: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    settings: tuple[Hyperparameter, ...] = ()
    fixed: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    needs_loss: bool = False
    needs_layers: bool = False
    needs_float32_state: bool = False
    grafted: bool = False
    limits: str = ""

    def setting(self, name: str) -> Hyperparameter | None:
        """The setting of that name, None if a user cannot choose it here."""
        return next((setting for setting in self.settings if setting.name == name), None)

    @property
    def values(self) -> dict[str, float]:
        """What the factory is given: the shipped settings and what is fixed."""
        return {**{setting.name: setting.default for setting in self.settings}, **self.fixed}

    def rate_under(self, precision: str) -> float:
        """The learning rate that ships for a precision policy."""
        return self.rates.get(precision, self.learning_rate)
