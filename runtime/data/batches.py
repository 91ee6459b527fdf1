"""Binds the fields of a data set to those of a bundle's batch and cuts batches from them.

A checkpoint relies on the order of the training examples (`epoch_order`): a run that resumes at step k must see the
same batches as an uninterrupted run. So the order must never change.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import ml_dtypes  # This import registers bfloat16 with NumPy.
import numpy as np

from sonew_compiled.errors import UsageError, counted
from sonew_compiled.runtime.data.dataset import check_lengths
from sonew_compiled.runtime.data.mapped import check_whole, is_mapped
from sonew_compiled.runtime.manifest import TensorSpec

_FLOATS = tuple(np.dtype(t) for t in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16))
# With larger numbers NumPy would make a list float64, and several seeds would have one order.
_LARGEST_SEED = 2**63 - 1

_ACCEPTED = (
    "accepted are the same dtype, uint8 for a floating-point input (scaled by 1/255; of a target it may be a class), "
    "float16 and float64 for float32, any integer for int32, zeros and ones for a boolean field, and booleans for any"
)

# The names of inputs, and of targets.
_TARGETS = ("label", "labels", "y", "target", "targets")
_SYNONYMS = (("image", "x", "input", "inputs", "features"), _TARGETS)

_Convert = Callable[[np.ndarray], np.ndarray]
_Placed = TypeVar("_Placed")


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of the `n` training examples in an epoch: an int64 (n,) permutation.

    Checkpoints rely on it: the same arguments give the same order on every machine.

    Raises:
      UsageError: the seed is not in 0 to 2**63 - 1.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        raise UsageError(f"the seed {seed} cannot order the data; accepted are 0 to {_LARGEST_SEED}")
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Field:
    """A field of the batch: `source` has the examples in the data's dtype, and `convert` gives the batch's, `dtype`.

    `is_scaled` is true of bytes that become parts of 255.
    """

    name: str
    source: np.ndarray
    convert: _Convert
    dtype: np.dtype
    is_scaled: bool

    def batch(self, indices: np.ndarray | slice) -> np.ndarray:
        """The examples of these indices, as the bundle takes them."""
        if is_mapped(self.source):
            check_whole(self.source)
        return self.convert(self.source[indices])


class BoundData:
    """Examples in the dtypes of a data set, from which batches in the shapes and dtypes of a bundle are cut.

    A batch is a dict from the names of the bundle's fields to new C-contiguous arrays. The examples are converted one
    batch at a time, because they take a quarter of the memory as uint8 that they would take as float32.

    Attributes:
      examples: the number of examples.
      batch_size: the number of examples in a batch.
    """

    def __init__(self, fields: tuple[_Field, ...], batch_size: int) -> None:
        self.examples = len(fields[0].source)
        self.batch_size = batch_size
        self._fields = fields
        self._order: tuple[int, int, np.ndarray] | None = None

    def __repr__(self) -> str:
        fields = ", ".join(field.name for field in self._fields)
        return f"BoundData({counted(self.examples, 'example')} of {fields}, in batches of {self.batch_size})"

    def kept_dtypes(self, field: str) -> tuple[str, ...]:
        """The dtypes in which a device can keep the examples of a field, the best first; none if they are mapped."""
        found = self._field(field)
        own = (str(found.source.dtype),) if found.is_scaled else ()
        return () if is_mapped(found.source) else (*own, str(found.dtype))

    def kept(self, field: str, dtype: str) -> np.ndarray:
        """All examples of a field in one of these dtypes."""
        found = self._field(field)
        return found.source if str(found.source.dtype) == dtype else found.convert(found.source)

    def _field(self, name: str) -> _Field:
        return next(field for field in self._fields if field.name == name)

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in an epoch; the remaining examples are dropped, different ones in each epoch.

        Raises:
          UsageError: there is less than one batch.
        """
        steps = self.examples // self.batch_size
        if steps == 0:
            raise UsageError(
                f"the data has {self.examples} training examples, less than one batch of {self.batch_size}; compile "
                f"with --batch-size {self.examples} or smaller"
            )
        return steps

    def training_batch(self, seed: int, step: int, within: slice = slice(None)) -> dict[str, np.ndarray]:
        """Batch number `step`, counted from 0 at the start of training; `training_indices` has the arguments."""
        return self.take(self.training_indices(seed, step, within))

    def training_indices(self, seed: int, step: int, within: slice = slice(None)) -> np.ndarray:
        """The numbers of the examples of a batch.

        Args:
          seed: orders the examples, together with the epoch, which is `step // steps_per_epoch`.
          step: the number of the batch, counted from 0 at the start of training; any number, in any order, but steps of
            the same epoch are fast.
          within: which of the batch's examples.

        Raises:
          UsageError: there is less than one batch, or the seed is out of range.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        cached = self._order
        if cached is None or cached[:2] != (seed, epoch):
            self._order = cached = (seed, epoch, epoch_order(seed, epoch, self.examples))
        start = position * self.batch_size
        return cached[2][start : start + self.batch_size][within]

    def training_batches(
        self, seed: int, step: int, place: Callable[[dict[str, np.ndarray]], _Placed], within: slice = slice(None)
    ) -> Generator[_Placed, None, None]:
        """An endless generator of batches from number `step` on, each made and placed while the one before is at work.

        Close the generator in the end.

        Args:
          seed: see `training_indices`; neither it nor `training_batch` must be called meanwhile.
          step: the number of the first batch.
          place: places a batch, such as `Program.upload_batch`; it is called in another thread.
          within: see `training_indices`.

        Raises:
          UsageError: see `training_indices`. Exceptions of `place` are raised too.
        """

        def placed(step: int) -> _Placed:
            return place(self.training_batch(seed, step, within))

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sonew-batch") as another:
            coming = another.submit(placed, step)
            for following in itertools.count(step + 1):
                batch = coming.result()
                coming = another.submit(placed, following)
                yield batch

    def evaluation_batches(self, first: int = 0, every: int = 1) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Batches of all examples in order, each with the number of those that count: see `evaluation_indices`."""
        for indices, valid in self.evaluation_indices(first, every):
            yield self.take(indices), valid

    def evaluation_indices(self, first: int = 0, every: int = 1) -> Iterator[tuple[np.ndarray, int]]:
        """The numbers of the examples of all batches in order, each with the number of its examples that count.

        The last batch is padded with its last example; fewer examples than one batch make one batch.

        Args:
          first: the number of the first batch, for one of several workers.
          every: the step from one batch of this worker to its next.
        """
        for start in range(first * self.batch_size, self.examples, every * self.batch_size):
            indices = np.arange(start, start + self.batch_size)
            yield np.minimum(indices, self.examples - 1), min(self.batch_size, self.examples - start)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The batch of the examples of these numbers."""
        return {field.name: field.batch(indices) for field in self._fields}


def bind(
    arrays: Mapping[str, np.ndarray], batch: tuple[TensorSpec, ...], classes: Mapping[str, int] = MappingProxyType({})
) -> BoundData:
    """Matches the fields of a data set to those of a bundle's batch.

    Args:
      arrays: by field name, the examples on axis 0; `Dataset.train` or `Dataset.test`.
      batch: the fields of the batch, `Manifest.batch`; each shape starts with the batch size.
      classes: of the batch's fields that are labels, the number of classes, `Manifest.classes`.

    Fields are matched by name, as long as each of the batch has one. Otherwise `image`, `x`, `input`, `inputs` and
    `features` stand for each other, and so do `label`, `labels`, `y`, `target` and `targets`, if the data has a single
    one of them that the batch does not name. The only field of a batch takes `image`.

    An example may have another shape than that of the batch if only axes that follow each other are joined or split:
    (28, 28) for 784, but not (3, 32, 32) for (32, 32, 3). The dtypes may be

    | data | batch | conversion |
    |---|---|---|
    | any | the same | none |
    | uint8, no target | float16, bfloat16, float32, float64 | float32(x) / float32(255), then rounded to the dtype |
    | float64 | float32 | rounded |
    | float16, bfloat16 | float32 | exact |
    | any integer | int32 | exact |
    | integers that are 0 or 1 | bool | exact |
    | bool | any | 0 or 1 |

    Raises:
      UsageError: a field is missing, or its shape, dtype or values do not fit.
    """
    if not batch:
        raise UsageError("the bundle's batch has no fields; compile a model whose batch has at least one")
    sizes = {spec.name: spec.shape[:1] for spec in batch}
    if len(set(sizes.values())) != 1 or batch[0].shape[:1] in ((), (0,)):
        listed = ", ".join(f"{spec.name} {spec.shape}" for spec in batch)
        raise UsageError(f"the bundle's batch fields ({listed}) must all start with the same batch size; compile again")
    names = {spec.name: _source_of(spec.name, arrays, batch) for spec in batch}
    missing = [field for field in names.values() if field not in arrays]
    if missing:
        raise UsageError(
            f"the data has no field {', '.join(missing)}; the bundle's batch has {_listed(batch)}, the data "
            f"{', '.join(arrays)}: name the data's fields like the bundle's"
        )
    if len({*names.values()}) < len(names):
        twice = next(name for name in names.values() if [*names.values()].count(name) > 1)
        takers = ", ".join(spec.name for spec in batch if names[spec.name] == twice)
        raise UsageError(f"the batch's {takers} would all take the data's `{twice}`: name the data's fields like them")
    check_lengths({name: arrays[name] for name in names.values()}, least=0, source="the data")
    return BoundData(
        tuple(_field(spec, names[spec.name], arrays, classes.get(spec.name)) for spec in batch), batch[0].shape[0]
    )


def _source_of(field: str, arrays: Mapping[str, np.ndarray], batch: tuple[TensorSpec, ...]) -> str:
    """The field of the data that a field of the batch takes, or would take if it were there."""
    if field in arrays:
        return field
    named = {spec.name for spec in batch}
    synonyms = next((group for group in _SYNONYMS if field in group), ())
    others = [name for name in arrays if name in synonyms and name not in named]
    if len(others) == 1:
        return others[0]
    return "image" if len(batch) == 1 else field


def _check_labels(name: str, array: np.ndarray, count: int) -> None:
    if array.size and array.dtype.kind in "iu" and not 0 <= array.min() <= array.max() < count:
        raise UsageError(
            f"the data's `{name}` has labels from {array.min()} to {array.max()}; the model has {count} classes, "
            f"whose labels are 0 to {count - 1}: number them so"
        )


def _field(spec: TensorSpec, name: str, arrays: Mapping[str, np.ndarray], classes: int | None) -> _Field:
    array = arrays[name]
    if classes is not None and not is_mapped(array):
        _check_labels(name, array, classes)
    example = spec.shape[1:]
    what = (
        f"the data's `{name}` has examples of {array.dtype} {array.shape[1:]}, the bundle's `{spec.name}` asks for "
        f"{spec.dtype} {example}"
    )
    if int(np.prod(array.shape[1:])) != int(np.prod(example)):
        raise UsageError(f"{what}; accepted is any shape with as many elements: use other data or another model")
    if not _is_regrouped(array.shape[1:], example):
        raise UsageError(f"{what}, which has the axes in another order: transpose or reshape the data before saving")
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError:
        raise UsageError(f"{what}, a dtype that this runtime does not know; upgrade sonew-compiled") from None
    source = array.reshape(len(array), *example)
    scaled = array.dtype == np.uint8 and dtype in _FLOATS and not {name, spec.name} & {*_TARGETS}
    if not is_mapped(array):
        convert = _conversion(array, dtype, what=what, scale=scaled)
        return _Field(name=spec.name, source=source, convert=convert, dtype=dtype, is_scaled=scaled)
    # A conversion of no rows shows whether there is one at all. The values of a mapped file are checked batch by batch.
    _conversion(array[:0], dtype, what=what, scale=scaled)

    def checked(rows: np.ndarray) -> np.ndarray:
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise UsageError(f"the data's `{name}` holds NaN or infinity in a batch; every value must be finite")
        if classes is not None:
            _check_labels(name, rows, classes)
        return _conversion(rows, dtype, what=what, scale=scaled)(rows)

    return _Field(name=spec.name, source=source, convert=checked, dtype=dtype, is_scaled=scaled)


def _is_regrouped(given: Sequence[int], asked: Sequence[int]) -> bool:
    """Whether one shape is the other with axes that follow each other joined; of a tensor without elements, any."""
    ends = [{*itertools.accumulate(shape, operator.mul)} - {1} for shape in (given, asked)]
    return 0 in given or ends[0] <= ends[1] or ends[1] <= ends[0]


def _conversion(array: np.ndarray, dtype: np.dtype, *, what: str, scale: bool) -> _Convert:
    """The conversion of some rows of `array`, a new array, to `dtype`; with `scale`, of bytes to parts of 255."""
    if array.dtype == dtype:
        return lambda rows: rows
    if scale:
        # The division is float32 for every dtype, since its rounding is part of the definition.
        return lambda rows: np.divide(rows, np.float32(255), dtype=np.float32).astype(dtype, copy=False)
    limits = _limits(array.dtype, dtype)
    if limits is None:
        raise UsageError(f"{what}; {_ACCEPTED}: convert the data, or compile with another dtype")
    if array.size:
        least, most = limits
        low, high = array.min().item(), array.max().item()
        if low < least or high > most:
            raise UsageError(f"{what}; its values {low} to {high} do not fit: accepted are {least} to {most}")
    return lambda rows: rows.astype(dtype)


def _limits(had: np.dtype, dtype: np.dtype) -> tuple[float, float] | None:
    """The least and the greatest value of dtype `had` that can be converted to `dtype`; None if none can."""
    if dtype == np.float32 and had in _FLOATS:
        return float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    if had == np.bool_ and (dtype in _FLOATS or dtype.kind in "iu"):
        return 0, 1
    if had.kind in "iu" and dtype == np.int32:
        return int(np.iinfo(np.int32).min), int(np.iinfo(np.int32).max)
    return (0, 1) if had.kind in "iu" and dtype == np.bool_ else None


def _listed(batch: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} ({spec.dtype} {spec.shape})" for spec in batch)
