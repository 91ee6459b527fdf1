"""The loss over a whole data set, and predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np

from sonew_compiled.contract import EVAL_STEP, PREDICT
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.data import BoundData
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.workers import Alone, Workers


def evaluate(
    program: Program,
    state: Mapping[str, Buffer],
    data: BoundData,
    *,
    each: Callable[[], None] | None = None,
    workers: Workers | None = None,
) -> float:
    """The mean loss over all examples, summed in float64.

    Args:
      program: whose `eval_step` to call.
      state: the parameters by name, such as `TrainingState.buffers`; other tensors are ignored.
      data: the examples.
      each: called after every batch, such as to look for an interruption.
      workers: who share the batches; the sum is the same for any number of them.
    """
    workers = workers or Alone()
    spec = program.manifest.functions[EVAL_STEP].outputs[0]
    sums: list[float] = []
    for batch, valid in data.evaluation_batches(workers.rank, workers.count):
        results = program.call(EVAL_STEP, {**state, **program.upload_batch(batch, function=EVAL_STEP)})
        losses = program.download(spec, results[spec.name])
        sums.append(float(np.sum(losses[:valid], dtype=np.float64)))
        if each is not None:
            each()
    # Added up one by one in the order of the batches, which were dealt out in turn.
    total = 0.0
    for turn in itertools.zip_longest(*workers.gather(sums), fillvalue=0.0):
        for one in turn:
            total += one
    return total / data.examples


def predict(program: Program, state: Mapping[str, Buffer], batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The model's prediction for a whole batch; an array of the shape and dtype that the manifest says.

    Args:
      program: whose `predict` to call.
      state: the parameters by name, such as `TrainingState.buffers`; other tensors are ignored.
      batch: arrays by field name, of the shapes and dtypes that were compiled.

    Raises:
      UsageError: the bundle has no `predict`, or a field of the batch is missing or of the wrong shape or dtype.

    """
    if not program.has(PREDICT):
        raise UsageError(
            f"the bundle {program.bundle.path} has no predict function: give the model one and compile it again"
        )
    spec = program.manifest.functions[PREDICT].outputs[0]
    results = program.call(PREDICT, {**state, **program.upload_batch(batch, function=PREDICT)})
    return program.download(spec, results[spec.name])
