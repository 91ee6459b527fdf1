"""Experiment trackers, fed by their own libraries: what `--log` writes for TensorBoard, Weights & Biases and MLflow.

Each takes the lines of `metrics.jsonl` as they come, with the training step as the axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sonew_compiled.runtime import EpochMetrics


class Tracker(Protocol):
    """A tracker that is open for one run."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Writes numbers, each with its name."""

    def close(self) -> None:
        """Ends the run in the tracker."""


class Trackers:
    """The trackers of one run, which open with its first epoch. One that fails is left out from then on."""

    def __init__(
        self, kinds: Sequence[str], *, folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        """Opens none yet.

        Args:
          kinds: names of `TRACKERS`.
          folder: the run's folder, whose name the run has. TensorBoard writes into its `tensorboard`;
            the others' own settings say where they write, such as `WANDB_MODE` and `MLFLOW_TRACKING_URI`.
          settings: the run's settings by name, for trackers that keep them.
          say: is told of a tracker that fails.
        """
        self._kinds, self._folder, self._settings, self._say = tuple(kinds), folder, settings, say
        self._open: dict[str, Tracker] = {}

    def epoch(self, metrics: EpochMetrics) -> None:
        """Writes an epoch's numbers; those that are not finite are left out."""
        values = {name: value for name, value in metrics.to_json().items() if value is not None and name != "step"}
        for kind in self._kinds:
            try:
                if kind not in self._open:
                    self._open[kind] = TRACKERS[kind](self._folder, self._settings)
                self._open[kind].write(values, metrics.step)
            except Exception as error:  # a server that does not answer is no reason to stop training
                self._kinds = tuple(each for each in self._kinds if each != kind)
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._say(f"{kind} receives nothing more of this run ({lines[0][:200]}); training goes on")

    def close(self) -> None:
        """Ends the run in the trackers."""
        for kind, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:
                self._say(f"{kind} could not be closed ({type(error).__name__}); metrics.jsonl has all of the run")


class _TensorBoard:
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from tensorboard.summary import Writer

        self._writer: Any = Writer(str(folder / "tensorboard"))

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(name=folder.name, dir=str(folder), config=dict(settings))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params(dict(settings))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}
"""The trackers by name."""
