"""The plan of a benchmark: its runs, each with all settings that distinguish it from the others."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from sonew_compiled.bench.labels import told_apart
from sonew_compiled.bench.suites import HERE, PAPER
from sonew_compiled.errors import UsageError
from sonew_compiled.held import Held, paths_of
from sonew_compiled.lowering.targets import pin_host, resolve_targets
from sonew_compiled.models import Model
from sonew_compiled.presets import PRESETS, OptimizerSettings, optimizer_settings, preset_for
from sonew_compiled.runtime import list_devices, open_device, why_not_here
from sonew_compiled.step_settings import PLAIN, StepSettings, check_matches


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a compiled step, and so one row. The rows of its comparisons differ in `kind`.

    Attributes:
      kind: `train` to the end, `time` a few steps, or `static`: compile only.
      model: its name on the command line.
      optimizer: its settings; the learning rate is the schedule's peak.
      precision: a policy.
      target: the target to compile for.
      device: the device to run on; empty for `static`.
      batch_size: the examples in a step.
      seed: the seed of the initial weights and the order of the data.
      epochs: the length of a run of kind `train`, else None.
      steps: the steps that a run of kind `time` times, else None.
      data: the name of the data set.
      data_dir: the folder of its files; None for the usual places.
      schedule: the schedule of the learning rate in a run of kind `train`.
      step: what a step does besides its optimizer.
    """

    kind: str
    model: str
    optimizer: OptimizerSettings
    precision: str
    target: str
    device: str
    batch_size: int
    seed: int
    epochs: int | None
    steps: int | None
    data: str
    data_dir: str | None = None
    schedule: str = PAPER
    step: StepSettings = PLAIN

    def settings(self) -> dict[str, Any]:
        """The settings that identify a row, as JSON values."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        del settings["data_dir"]  # the place of the data is no property of the run
        if self.schedule == PAPER:
            del settings["schedule"]  # rows that were written before there was a choice do not say it
        del settings["step"]  # likewise
        step = {"step": given} if (given := self.step.to_json()) else {}
        return settings | step | {"optimizer": self.optimizer.to_json()}

    @classmethod
    def from_settings(cls, settings: dict[str, Any], data_dir: str | None = None) -> Run:
        """The inverse of `settings`."""
        read = {
            "optimizer": OptimizerSettings.from_json(settings["optimizer"]),
            "step": StepSettings(**settings.get("step", {})),
        }
        return cls(**{**settings, **read}, data_dir=data_dir)

    @property
    def bundle_name(self) -> str:
        """The folder of its bundle, which depends on neither the learning rate nor the seed."""
        optimizer = {**self.optimizer.to_json(), "learning_rate": None}
        step = [given] if (given := self.step.to_json()) else []
        parts = (self.model, optimizer, self.precision, self.target, self.batch_size, *step)
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
        words = (self.model.replace(":", "."), self.optimizer.name, self.precision, self.target.replace(":", "-"))
        return "-".join((*words, str(self.batch_size), digest))

    @property
    def label(self) -> str:
        """The run in a few words."""
        where = f" on {self.device}" if self.device else ""
        words = [self.optimizer.name, *self.step.flags(), self.precision, self.target]
        return f"{' '.join(words)}{where} seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The runs in order, and the further measurements of each.

    Attributes:
      runs: each with settings of its own.
      target_losses: the losses whose first epoch, steps and seconds are recorded.
      update: whether the optimizer's update alone is compiled and timed.
      versus: `jax`, `torch`: the frameworks with which the bare step is compared.
      pairs: the number of pairs of each comparison.
      caveat: a warning about what the rows do not show; see `Suite`.
    """

    runs: tuple[Run, ...]
    target_losses: tuple[float, ...] = ()
    update: bool = True
    versus: tuple[str, ...] = ()
    pairs: int = 20
    caveat: str = ""

    def labels(self) -> list[str]:
        """Each run in a few words, unlike those of the others."""
        plain = [run.label for run in self.runs]
        apart = told_apart(plain, [run.settings() for run in self.runs])
        return [", ".join((label, *more)) for label, more in zip(plain, apart, strict=True)]


def make_runs(
    *,
    model: str,
    optimizers: Sequence[str],
    precisions: Sequence[str],
    places: Sequence[tuple[str, str]],
    batch_size: int,
    seeds: Sequence[int],
    epochs: int | None,
    steps: int | None,
    data: str,
    data_dir: Path | None,
    schedule: str = PAPER,
    learning_rate: float | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    forms: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
    step: StepSettings = PLAIN,
) -> tuple[Run, ...]:
    """A run for every combination.

    Args:
      model, batch_size, epochs, steps, data, data_dir: the same for every run.
      optimizers: their names, with the settings that ship for this length of training.
      precisions: the policies.
      places: the targets, each with the device that runs it; `""` if none does.
      seeds: the seeds; runs that are only compiled have the first.
      schedule: the schedule of the learning rate in runs that train.
      learning_rate: replaces the optimizers' own.
      settings: replace the optimizers' own unless they are None, as in `optimizer_settings`.
      forms: the settings of each run of an optimizer that has several, as in `Suite`; `settings` replace them.
      step: what a step of every run does besides its optimizer.

    Raises:
      UsageError: an optimizer does not exist or does not take a setting, or a number is out of range.
    """
    if (epochs is None) == (steps is None):
        raise UsageError("give --epochs to train or --steps to time that many steps, not both")
    given = {name: value for name, value in settings.items() if value is not None}
    is_open = learning_rate is None and not given
    systems = [(name, {**form, **given}) for name in optimizers for form in forms.get(name, ({},))]
    # Forms that differ in nothing but what `settings` replace are one.
    systems = [system for place, system in enumerate(systems) if system not in systems[:place]]
    runs = []
    for (name, values), precision, (target, device), seed in itertools.product(systems, precisions, places, seeds):
        if not device and seed != seeds[0]:
            continue
        preset = PRESETS[0]
        if epochs is not None and is_open:
            preset = preset_for(name, model=model, precision=precision, epochs=epochs, schedule=schedule)
        optimizer = optimizer_settings(name, precision=precision, preset=preset, **values)
        if learning_rate is not None:
            optimizer = replace(optimizer, learning_rate=learning_rate)
        runs.append(
            Run(
                kind="static" if not device else "train" if epochs is not None else "time",
                model=model,
                optimizer=optimizer,
                precision=precision,
                target=target,
                device=device,
                batch_size=batch_size,
                seed=seed,
                epochs=epochs if device else None,
                steps=steps if device else None,
                data=data,
                data_dir=None if data_dir is None else str(data_dir),
                schedule=schedule if device and epochs is not None else PAPER,
                step=step,
            )
        )
    return tuple(runs)


def check_step(model: Model, step: StepSettings) -> None:
    """Checks the patterns of a step's settings, before a run of each combination fails of them.

    Raises:
      UsageError: one matches no parameter of the model, or nothing is left to train.
    """
    if not step.freeze and not step.no_decay:
        return
    made = jax.eval_shape(lambda: model.init(jax.random.key(0, impl="threefry2x32")))
    trained, _ = Held(step.freeze).split(made)
    check_matches("no_decay", step.no_decay, paths_of(trained))


def places_of(targets: Sequence[str], device: str | None) -> tuple[tuple[str, str], ...]:
    """Each target with the device that runs it here, or `""` if none does.

    Args:
      targets: names, or `suites.HERE` for all targets.
      device: the device to run on, or None for the first one that runs the target.

    Raises:
      UsageError: there is no such target or device, or the device cannot run a target that was asked for by name.
    """
    everything = tuple(targets) == (HERE,)
    devices = list_devices()
    if device is not None:
        opened = open_device(device)
        candidates = [(device, {opened.driver: opened.description})]
    else:
        candidates = [(info.name, {info.driver: info.description}) for info in devices]
    found = []
    for target in resolve_targets(("all",) if everything else targets):
        able = [name for name, described in candidates if not why_not_here(pin_host(target), described)]
        if not able and not everything and device is not None:
            raise UsageError(
                f"device {device} cannot run target {target.name}; give another --device, or none to compile only"
            )
        found.append((target.name, able[0] if able else ""))
    return tuple(found)
