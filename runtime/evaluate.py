"""The loss and the metrics over a whole data set, and predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sonew_compiled.contract import COUNT, EVAL_STEP, PREDICT, PREDICTION, SUM, Role, path_in_tree
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.data import BoundData
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.workers import Alone, Workers


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model is worth on a data set.

    Attributes:
      loss: the mean over all examples, or over the whole batches of a model whose loss is of whole batches.
      metrics: by name, the mean over the same examples, or the quotient of the sums; NaN where nothing was counted.
      left_over: examples that make no whole batch, of such a model; else 0.
    """

    loss: float
    metrics: Mapping[str, float]
    left_over: int


def evaluate(
    program: Program,
    state: Mapping[str, Buffer],
    data: BoundData,
    *,
    each: Callable[[], None] | None = None,
    workers: Workers | None = None,
) -> float:
    """The mean loss over all examples: `evaluate_all` has the arguments."""
    return evaluate_all(program, state, data, each=each, workers=workers).loss


def evaluate_all(
    program: Program,
    state: Mapping[str, Buffer],
    data: BoundData,
    *,
    each: Callable[[], None] | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """The loss and the metrics, summed in float64.

    Args:
      program: whose `eval_step` to call.
      state: parameters and the model's state by name, such as `TrainingState.buffers`; other tensors are ignored.
      data: the examples.
      each: called after every batch, such as to look for an interruption.
      workers: who share the batches; the sums are the same for any number of them.

    Raises:
      UsageError: as `check_evaluated`.
    """
    check_evaluated(program.manifest, data)
    workers = workers or Alone()
    outputs = program.manifest.functions[EVAL_STEP].outputs
    whole = program.manifest.whole_batches
    sums: list[list[float]] = []
    for batch, valid in data.evaluation_batches(workers.rank, workers.count):
        if whole and valid < data.batch_size:
            break
        results = program.call(EVAL_STEP, {**state, **program.upload_batch(batch, function=EVAL_STEP)})
        values = [program.download(spec, results[spec.name]) for spec in outputs]
        sums.append([float(np.sum(one[:valid] if one.ndim else one, dtype=np.float64)) for one in values])
        if each is not None:
            each()
    # Added up one by one in the order of the batches, which were dealt out in turn.
    totals = [0.0] * len(outputs)
    for turn in itertools.zip_longest(*workers.gather(sums), fillvalue=[]):
        for one in turn:
            for index, value in enumerate(one):
                totals[index] += value
    left_over = data.examples % data.batch_size if whole else 0
    examples = data.examples - left_over
    measured = {
        path_in_tree(spec.name, Role.METRIC): value
        for spec, value in zip(outputs, totals, strict=True)
        if spec.role == Role.METRIC
    }
    return Evaluation(
        loss=totals[0] / (examples // data.batch_size if whole else examples),
        metrics=_quotients(measured, examples),
        left_over=left_over,
    )


def check_evaluated(manifest: Manifest, data: BoundData) -> None:
    """Checks that there is something to evaluate.

    Raises:
      UsageError: the loss is of whole batches, and there is none.
    """
    if manifest.whole_batches and data.examples < data.batch_size:
        raise UsageError(
            f"the data has a split of {data.examples} examples, and the loss of this model is one of whole batches of "
            f"{data.batch_size}; give more, or compile with --batch-size {data.examples} or smaller"
        )


def _quotients(sums: Mapping[str, float], examples: int) -> dict[str, float]:
    found = {}
    for name, value in sums.items():
        if not name.endswith((SUM, COUNT)):
            found[name] = value / examples
        elif name.endswith(SUM):
            count = sums.get(name.removesuffix(SUM) + COUNT, 0.0)
            found[name.removesuffix(SUM)] = value / count if count else float("nan")
    return found


def predict(
    program: Program, state: Mapping[str, Buffer], batch: Mapping[str, np.ndarray]
) -> np.ndarray | dict[str, np.ndarray]:
    """The model's prediction for a whole batch, of the shapes and dtypes that the manifest says.

    Args:
      program: whose `predict` to call.
      state: parameters and the model's state by name, such as `TrainingState.buffers`; other tensors are ignored.
      batch: arrays by field name, of the shapes and dtypes that were compiled.

    Returns:
      An array, or of a model whose prediction is a tree those of the tree by their paths, such as `boxes/scores`.

    Raises:
      UsageError: the bundle has no `predict`, or a field of the batch is missing or of the wrong shape or dtype.
    """
    if not program.has(PREDICT):
        raise UsageError(
            f"the bundle {program.bundle.path} has no predict function: give the model one and compile it again"
        )
    results = program.call(PREDICT, {**state, **program.upload_batch(batch, function=PREDICT)})
    arrays = {
        path_in_tree(spec.name, Role.PREDICTION): program.download(spec, results[spec.name])
        for spec in program.manifest.functions[PREDICT].outputs
    }
    return arrays[PREDICTION] if arrays.keys() == {PREDICTION} else arrays
