"""The result of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sonew_compiled.runtime.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a run.

    Attributes:
      on_train: what the model is worth on the whole training split.
      on_test: on the test split.
      steps: done since the start of training, before a resumed checkpoint included.
      seconds: spent in training by this process, without the two losses.
      images_per_second: over these seconds; 0 if there was nothing left to train.
      checkpoint: of the last step.
      best_test_loss: the least that was measured at the end of an epoch; None if none was.
      best_checkpoint: of that epoch, if `keep_best` kept it.
      stopped_early: whether the user's patience was at an end before the last step.
      metrics: the `metrics.jsonl` of the run.
      bundle: that was trained from, where it is now.
      target: the executable of the bundle that ran.
      device: it ran on.
    """

    on_train: Evaluation
    on_test: Evaluation
    steps: int
    seconds: float
    images_per_second: float
    checkpoint: Path
    best_test_loss: float | None
    best_checkpoint: Path | None
    stopped_early: bool
    metrics: Path
    bundle: Path
    target: str
    device: str

    @property
    def train_loss(self) -> float:
        """Over the whole training split, in float64."""
        return self.on_train.loss

    @property
    def test_loss(self) -> float:
        """Over the test split, likewise."""
        return self.on_test.loss
