"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sonew_compiled.errors import counted, measured
from sonew_compiled.runtime.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a run.

    Attributes:
      on_train: the loss and the metrics of the whole training split.
      on_test: the loss and the metrics of the test split.
      steps: the training steps done, including those before a resumed checkpoint.
      seconds: the time that this process trained, without the evaluations of both splits at the end.
      examples_per_second: the examples per second over that time; 0 if there was nothing left to train.
      checkpoint: the checkpoint of the last step.
      best_test_loss: the least test loss at the end of an epoch; None if there was none.
      best_checkpoint: the checkpoint of that epoch, if `keep_best` kept it.
      stopped_early: whether `patience` ended the run before its last step.
      metrics: the `metrics.jsonl` of the run.
      bundle: the path of the bundle at the end of the run.
      target: the executable of the bundle that ran.
      device: the name of the device that ran it.
    """

    on_train: Evaluation
    on_test: Evaluation
    steps: int
    seconds: float
    examples_per_second: float
    checkpoint: Path
    best_test_loss: float | None
    best_checkpoint: Path | None
    stopped_early: bool
    metrics: Path
    bundle: Path
    target: str
    device: str

    def __repr__(self) -> str:
        done = f"{counted(self.steps, 'step')}: train loss {measured(self.train_loss)}, test {measured(self.test_loss)}"
        return f"TrainResult({done}; {self.checkpoint})"

    @property
    def train_loss(self) -> float:
        """Over the whole training split, in float64."""
        return self.on_train.loss

    @property
    def test_loss(self) -> float:
        """Over the test split, likewise."""
        return self.on_test.loss
