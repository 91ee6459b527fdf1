"""What `sonew run` and `sonew eval` say of a model's worth: the losses and metrics of both splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sonew_compiled.errors import counted, measured

if TYPE_CHECKING:
    from sonew_compiled.runtime import Evaluation


def figures(train: Evaluation, test: Evaluation) -> dict[str, float]:
    """By names such as `train_loss` and `test_accuracy`."""
    from sonew_compiled.runtime.metrics import by_split

    return {"train_loss": train.loss, "test_loss": test.loss, **by_split(train.metrics, test.metrics)}


def in_words(train: Evaluation, test: Evaluation, unit: str) -> str:
    """In one line: `train loss 0.3014, test loss 0.3120 nats, train accuracy 0.9120, test accuracy 0.9060`."""
    words = {name.replace("_", " ", 1): measured(value) for name, value in figures(train, test).items()}
    words["test loss"] += f" {unit}" if unit else ""
    left = train.left_over + test.left_over
    rest = f", {counted(left, 'example')} left over from whole batches" if left else ""
    return ", ".join(f"{name} {value}" for name, value in words.items()) + rest
