"""The loss and the metrics over a whole data set, and predictions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sonew_compiled.contract import COUNT, EVAL_STEP, PREDICT, PREDICTION, SUM, Role, path_in_tree
from sonew_compiled.errors import UsageError, counted
from sonew_compiled.runtime.data import BoundData, bind
from sonew_compiled.runtime.device import Buffer
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.examples import Examples
from sonew_compiled.runtime.manifest import Manifest, TensorSpec
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.workers import Alone, Workers


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The loss and the metrics of a model on a data set.

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
    data: Mapping[str, np.ndarray] | BoundData | Examples,
    *,
    each: Callable[[], None] | None = None,
    workers: Workers | None = None,
) -> float:
    """The mean loss over all examples: `evaluate_all` has the arguments."""
    return evaluate_all(program, state, data, each=each, workers=workers).loss


def evaluate_all(
    program: Program,
    state: Mapping[str, Buffer],
    data: Mapping[str, np.ndarray] | BoundData | Examples,
    *,
    each: Callable[[], None] | None = None,
    workers: Workers | None = None,
) -> Evaluation:
    """The loss and the metrics, summed in float64.

    Args:
      program: the loaded bundle.
      state: parameters and the model's state by name, such as `TrainingState.buffers`; other tensors are ignored.
      data: arrays by field name with the examples on axis 0, converted as `bind` does it, or the result of `bind`, or
        these placed for the program.
      each: called after every batch, such as to look for an interruption.
      workers: the workers that share the batches; the sums are the same for any number of them.

    Raises:
      UsageError: the data do not fit, or hold no whole batch, and the loss is of whole batches.
    """
    placed = data if isinstance(data, Examples) else None
    if isinstance(data, Examples):
        data = data.data
    elif not isinstance(data, BoundData):
        data = bind(data, program.manifest.batch, program.manifest.classes)
    check_evaluated(program.manifest, data)
    workers = workers or Alone()
    outputs = program.manifest.functions[EVAL_STEP].outputs
    whole = program.manifest.whole_batches
    sums: list[list[float]] = []
    for indices, valid in data.evaluation_indices(workers.rank, workers.count):
        if whole and valid < data.batch_size:
            break
        if placed is None:
            batch = program.upload_batch(data.take(indices), function=EVAL_STEP)
        else:
            batch = placed.batch(indices, function=EVAL_STEP)
        results = program.call(EVAL_STEP, {**state, **batch})
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
            f"the data has a split of {counted(data.examples, 'example')}, and the loss of this model is one "
            f"of whole batches of {data.batch_size}; give more, or compile with --batch-size {data.examples} or smaller"
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
    program: Program, state: Mapping[str, Buffer], data: Mapping[str, np.ndarray] | BoundData
) -> np.ndarray | dict[str, np.ndarray]:
    """The model's predictions for any number of examples, which are computed a batch at a time.

    The last batch is filled up with its last example. Only a model whose prediction of one example depends on the
    others of its batch can tell.

    Args:
      program: the loaded bundle.
      state: parameters and the model's state by name, such as `TrainingState.buffers`; other tensors are ignored.
      data: arrays by field name with the examples on axis 0, converted as `bind` does it; only the fields that
        `predict` reads need be there. Or the result of `bind`.

    Returns:
      An array with the predictions on axis 0, of the dtype that the manifest says. Of a model whose prediction is a
      tree a dict of such arrays by their paths, such as `boxes/scores`.

    Raises:
      UsageError: the bundle has no `predict`, a field is missing or does not fit, or a part of the prediction is not
        one for each example and the data is not exactly one batch.
    """
    check_predicts(program)
    manifest = program.manifest
    if not isinstance(data, BoundData):
        data = bind(data, manifest.fields(PREDICT), manifest.classes)
    check_predicts(program, is_one_batch=data.examples == data.batch_size)
    outputs = manifest.functions[PREDICT].outputs
    parts: dict[str, list[np.ndarray]] = {spec.name: [] for spec in outputs}
    for batch, valid in data.evaluation_batches():
        results = program.call(PREDICT, {**state, **program.upload_batch(batch, function=PREDICT)})
        for spec in outputs:
            made = program.download(spec, results[spec.name])
            parts[spec.name].append(made[:valid] if valid < data.batch_size else made)
    arrays = {path_in_tree(spec.name, Role.PREDICTION): _joined(parts[spec.name], spec) for spec in outputs}
    return arrays[PREDICTION] if arrays.keys() == {PREDICTION} else arrays


def check_predicts(program: Program, *, is_one_batch: bool = True) -> None:
    """Checks that there is a `predict`, and unless the data are exactly one batch that it gives one for each example.

    Raises:
      UsageError: it does not.
    """
    path, size = program.bundle.path, program.manifest.batch_size
    if not program.has(PREDICT):
        raise UsageError(f"the bundle {path} has no predict function: give the model one and compile it again")
    for spec in program.manifest.functions[PREDICT].outputs:
        if spec.shape[:1] != (size,) and not is_one_batch:
            raise UsageError(
                f"{spec.name} of {path} is {spec.dtype}{list(spec.shape)}, not one for each example: give exactly one "
                f"batch of {counted(size, 'example')}"
            )


def _joined(parts: list[np.ndarray], spec: TensorSpec) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros((0, *spec.shape[1:]), as_dtype(spec.dtype))
