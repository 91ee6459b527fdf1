"""Write a convolution as a product of matrices.

IREE 3.13 packs the operands of matrix products for a processor's caches and registers, and does neither for
convolutions: it takes several times as long for them. A convolution is a sum over the elements `k` of its window:

    result[b, p, f] = sum over k and c of operand[b, strides * p + dilations * k, c] * window[k, c, f]

It is a product in one of three forms. A layer's is the first:

    convolution(x[N, 28, 28, 8], w[3, 3, 8, 16])
becomes
    u = the slices x[:, i : i + 26, j : j + 26] side by side, for all elements (i, j) of the window : [N, 26, 26, 9 * 8]
    dot_general(u, reshape(w) : [9 * 8, 16])

The gradient of `w` convolves `x` with a window of 26 x 26 elements, which has nine places. In the second form the nine
slices are those of the places. They are the same as above, and the compiler makes them once for both if they are few.
Otherwise a barrier keeps it from that: between the two they would take nine times the memory of `x`, and each layer has
slices of its own.

The third form is for results with fewer features than the operand, as in the gradient of a layer's operand. It first
makes the product of the operand and each element of the window, nine times as many features as the result has, and adds
slices of that. If the layer has strides, its gradient convolves an operand with zeros between its elements. The zeros
are left out: with strides of 2 the elements of an axis of the result with even and with odd indices are sums of
different elements of the window, which are made apart and interleaved.

A convolution of groups stays, as do one of too many positions and one whose slices are too large.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import axis_numbers, paddings
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import element_type, is_float, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Option, Pass


@dataclass(frozen=True)
class _Steps:
    """Slices of a tensor along one axis: `count` of them, of `size` elements.

    Attributes:
      count: the number of slices.
      apart: the distance of their first elements.
      size: the elements of each.
      stride: the distance of its elements.
    """

    count: int
    apart: int
    size: int
    stride: int

    def ranges(self) -> Iterator[tuple[int, int, int]]:
        """The start, the end and the stride of each slice."""
        for index in range(self.count):
            start = index * self.apart
            yield start, start + (self.size - 1) * self.stride + 1, self.stride


@dataclass(frozen=True)
class _Residues:
    """An axis of the result of a convolution whose operand has zeros between its elements.

    The elements with indices `apart * q + r` of the result, for all `q`, are sums over those elements of the window
    that meet no zero: for each, element `q + offset` of the operand without zeros.

    Attributes:
      apart: the distance of the operand's elements.
      count: the number of `q`.
      terms: for each `r`, the elements of the window with their offsets.
    """

    apart: int
    count: int
    terms: tuple[tuple[tuple[int, int], ...], ...]

    @staticmethod
    def of(window: _Steps, low: int, between: int) -> _Residues:
        """Of the slices for the elements of the window, the padding before the operand, and the zeros between."""
        apart = between + 1
        met = [[(k, r + k * window.apart - low) for k in range(window.count)] for r in range(apart)]
        terms = (tuple((k, at // apart) for k, at in each if at % apart == 0) for each in met)
        return _Residues(apart, -(-window.size // apart), tuple(terms))

    @property
    def first(self) -> int:
        """The first element of the operand that is read; if it is negative, zeros are before the operand."""
        return min(offset for each in self.terms for _, offset in each)

    @property
    def end(self) -> int:
        """One after the last element that is read."""
        return max(offset for each in self.terms for _, offset in each) + self.count


class _Convolution:
    """A convolution, with its operands in the order of axes in which its forms read them.

    Attributes:
      op: the `stablehlo.convolution`.
      of_window: the slices of the operand for the elements of the window, by axis of space.
      of_places: those for the places of the window.
      batch, channels, features: the sizes of the axes that are not of space.
      residues: the axes of space of its third form without zeros; None if there are no zeros, or strides as well.
      size: the elements of the operand's space with its padding, as the third form reads it.
    """

    def __init__(self, op: ir.Operation) -> None:
        numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
        self.op = op
        self._operand = [numbers.input_batch_dimension, *numbers.input_spatial_dimensions]
        self._operand.append(numbers.input_feature_dimension)
        self._window = [numbers.kernel_input_feature_dimension, *numbers.kernel_spatial_dimensions]
        self._window.append(numbers.kernel_output_feature_dimension)
        self._result = [numbers.output_batch_dimension, *numbers.output_spatial_dimensions]
        self._result.append(numbers.output_feature_dimension)
        self.batch, *space, self.channels = _sizes(op.operands[0], self._operand)
        _, *window, self.features = _sizes(op.operands[1], self._window)
        places = _sizes(op.results[0], self._result)[1:-1]
        rank = len(window)
        strides, dilations = (axis_numbers(op, name, rank) for name in ("window_strides", "rhs_dilation"))
        spread = axis_numbers(op, "lhs_dilation", rank)
        self._padding = [
            (int(low), int(high), step - 1) for (low, high), step in zip(paddings(op, rank), spread, strict=True)
        ]
        padded = zip(space, self._padding, strict=True)
        self.size = math.prod(size + (size - 1) * between + low + high for size, (low, high, between) in padded)
        axes = list(zip(window, dilations, places, strides, strict=True))
        self.of_window = [_Steps(elements, dilation, count, stride) for elements, dilation, count, stride in axes]
        self.of_places = [_Steps(count, stride, elements, dilation) for elements, dilation, count, stride in axes]
        self.residues: list[_Residues] | None = None
        if max(strides) == 1 < max(spread):
            self.residues = [
                _Residues.of(steps, low, between)
                for steps, (low, _, between) in zip(self.of_window, self._padding, strict=True)
            ]
            self.size = math.prod(each.end - each.first for each in self.residues)

    def operand(self, *, channels_first: bool = False) -> ir.Value:
        """The operand, as [batch, space..., channels], or with its first and last axis exchanged."""
        return build.transpose(self.op.operands[0], _ends_exchanged(self._operand, channels_first))

    def window(self, *, channels_first: bool) -> ir.Value:
        """The window, as [space..., channels, features] or [channels, space..., features]."""
        channels, *space, features = self._window
        order = [channels, *space, features] if channels_first else [*space, channels, features]
        return build.transpose(self.op.operands[1], order)

    def padded(self, value: ir.Value) -> ir.Value:
        """A tensor with the operand's axes of space between two others, with the zeros of the operand's padding."""
        low, high, between = ([0, *each, 0] for each in zip(*self._padding, strict=True))
        return build.pad(value, build.constant(0, element_type(value)), low, high, between)

    def result(self, value: ir.Value, order: Sequence[int]) -> ir.Value:
        """The result, of a tensor whose axes are those of [batch, space..., features] in another order."""
        placed = [self._result[axis] for axis in order]
        return build.transpose(value, [placed.index(axis) for axis in range(len(placed))])


def unfold_convolutions(module: ir.Module, *, positions: int, elements: int, kept: int) -> None:
    """Replace each `stablehlo.convolution` of floating-point numbers that has few positions of one kind.

    Args:
      module: the module, changed in place.
      positions: the most slices that are made.
      elements: the most elements of a tensor of slices.
      kept: the most elements of a tensor of slices that is kept for the gradient of the window.
    """
    for op in operations_in(module.operation):
        if op.name == "stablehlo.convolution" and _is_plain(op):
            convolution = _Convolution(op)
            window, places = _count(convolution.of_window), _count(convolution.of_places)
            spread = convolution.size * window * convolution.features
            gathered = places * window * convolution.channels
            if min(window, places) > positions or convolution.batch * min(spread, gathered) > elements:
                continue
            with ir.InsertionPoint(op):
                if places < window:
                    result = _of_places(convolution, apart=convolution.batch * gathered > kept)
                elif spread < gathered and is_float(element_type(op.results[0])):
                    result = _of_products(convolution)
                else:
                    result = _of_elements(convolution)
            op.results[0].replace_all_uses_with(result)
            op.erase()


def _is_plain(op: ir.Operation) -> bool:
    """Whether it has no groups, no reversed window and no empty tensor, and multiplies floating-point numbers."""
    if any(ir.IntegerAttr(op.attributes[f"{kind}_group_count"]).value != 1 for kind in ("feature", "batch")):
        return False
    if "window_reversal" in op.attributes and any(ir.DenseBoolArrayAttr(op.attributes["window_reversal"])):
        return False
    tensors = (*op.operands, *op.results)
    return all(math.prod(shape_of(each)) and isinstance(element_type(each), ir.FloatType) for each in tensors)


def _of_elements(convolution: _Convolution) -> ir.Value:
    """The first form: the slices for the elements of the window are summed over."""
    slices = _side_by_side(convolution.padded(convolution.operand()), convolution.of_window)
    window = convolution.window(channels_first=False)
    *kept, _ = shape_of(slices)
    product = _product(slices, window, convolution, 1)
    value = build.reshape(product, [*kept, convolution.features])
    return convolution.result(value, range(len(kept) + 1))


def _of_places(convolution: _Convolution, *, apart: bool) -> ir.Value:
    """The second form: the slices for the places of the window are kept; `apart` makes them anew."""
    operand = convolution.operand(channels_first=True)
    if apart:
        (operand,) = build.apart([operand])
    slices = _side_by_side(convolution.padded(operand), convolution.of_places)
    product = _product(slices, convolution.window(channels_first=True), convolution, 0)
    places = [axis.count for axis in convolution.of_places]
    value = build.reshape(product, [*places, convolution.batch, convolution.features])
    rank = len(places)
    return convolution.result(value, [*range(1, rank + 1), 0, rank + 1])


def _of_products(convolution: _Convolution) -> ir.Value:
    """The third form: products of the operand with each element of the window are added at their places."""
    operand, features = convolution.operand(), convolution.features
    *kept, channels = shape_of(operand)
    # The features of each element of the window lie side by side.
    window = convolution.window(channels_first=True)
    wide = build.reshape(window, [channels, math.prod(shape_of(window)[1:])])
    flat = build.reshape(operand, [math.prod(kept), channels])
    product = build.product(flat, wide, (1, 0), element_type(convolution.op.results[0]))
    products = build.reshape(product, [*kept, shape_of(wide)[1]])
    if convolution.residues:
        total = _interleaved(products, convolution, convolution.residues)
    else:
        spread = convolution.padded(products)
        positions = itertools.product(*(axis.ranges() for axis in convolution.of_window))
        total = _sum(_block(spread, ranges, number * features, features) for number, ranges in enumerate(positions))
    return convolution.result(total, range(len(kept) + 1))


def _interleaved(products: ir.Value, convolution: _Convolution, axes: Sequence[_Residues]) -> ir.Value:
    """The third form's sums, where the operand has zeros between its elements."""
    batch, *space, _ = shape_of(products)
    features = convolution.features
    low = [0, *(-axis.first for axis in axes), 0]
    high = [0, *(axis.end - size for axis, size in zip(axes, space, strict=True)), 0]
    read = build.pad(products, build.constant(0, element_type(products)), low, high)
    counts, apart = [axis.count for axis in axes], [axis.apart for axis in axes]
    window = [steps.count for steps in convolution.of_window]
    sums = []
    for residues in itertools.product(*(axis.terms for axis in axes)):
        terms = []
        for elements in itertools.product(*residues):
            starts = [offset - axis.first for axis, (_, offset) in zip(axes, elements, strict=True)]
            ranges = [(start, start + axis.count, 1) for axis, start in zip(axes, starts, strict=True)]
            number = int(np.ravel_multi_index([k for k, _ in elements], window))
            terms.append(_block(read, ranges, number * features, features))
        shape = [batch, *counts, features]
        sums.append(_sum(terms) if terms else build.constant(0, element_type(products), shape))
    rank = len(axes)
    beside = build.reshape(build.concatenate(sums, rank + 1), [batch, *counts, *apart, features])
    order = [0, *itertools.chain(*((axis, rank + axis) for axis in range(1, rank + 1))), 2 * rank + 1]
    whole = [batch, *(axis.count * axis.apart for axis in axes), features]
    ends = [batch, *(steps.size for steps in convolution.of_window), features]
    return build.slice_of(build.reshape(build.transpose(beside, order), whole), [0] * len(ends), ends)


def _block(value: ir.Value, ranges: Iterable[tuple[int, int, int]], start: int, features: int) -> ir.Value:
    """A slice of each axis of space, and of some features."""
    within = [(0, shape_of(value)[0], 1), *ranges, (start, start + features, 1)]
    return build.slice_of(value, *zip(*within, strict=True))


def _sum(terms: Iterable[ir.Value]) -> ir.Value:
    return functools.reduce(functools.partial(build.elementwise, "add"), terms)


def _side_by_side(value: ir.Value, axes: Sequence[_Steps]) -> ir.Value:
    """The slices for all positions side by side in the last axis, of a tensor with the axes of space between others.

    One axis after the other: that makes the sum of their counts of slices, where all at once made the product.
    """
    last = len(axes) + 1
    for axis, steps in reversed(list(enumerate(axes, 1))):
        shape = shape_of(value)
        parts = []
        for start, end, stride in steps.ranges():
            starts, ends, strides = [0] * len(shape), list(shape), [1] * len(shape)
            starts[axis], ends[axis], strides[axis] = start, end, stride
            parts.append(build.slice_of(value, starts, ends, strides))
        value = build.concatenate(parts, last)
    return value


def _product(slices: ir.Value, window: ir.Value, convolution: _Convolution, contracted: int) -> ir.Value:
    """The product of slices, as a matrix of their last axis and the others, and the window's features."""
    *outer, inner = shape_of(slices)
    left = build.reshape(slices, [math.prod(outer), inner])
    right = build.reshape(window, [shape_of(left)[contracted], convolution.features])
    return build.product(left, right, (contracted, 0), element_type(convolution.op.results[0]))


def _count(axes: Sequence[_Steps]) -> int:
    return math.prod(axis.count for axis in axes)


def _sizes(value: ir.Value, axes: Sequence[int]) -> list[int]:
    return [shape_of(value)[axis] for axis in axes]


def _ends_exchanged(axes: Sequence[int], exchanged: bool) -> list[int]:
    first, *between, last = axes
    return [last, *between, first] if exchanged else [*axes]


PASS = Pass(
    name="unfold-convolutions",
    summary="write convolutions as products of matrices",
    description=__doc__,
    run=unfold_convolutions,
    options=(
        Option(name="positions", default=64, help="the largest number of slices", read=int),
        Option(name="elements", default=1 << 27, help="the largest tensor of slices, in elements", read=int),
        Option(name="kept", default=1 << 20, help="the largest that is kept for a gradient, in elements", read=int),
    ),
)
