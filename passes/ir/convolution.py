"""A convolution of MLIR, with its operands in the order of axes in which a sum over slices reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import axis_numbers, paddings
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import element_type, shape_of


@dataclass(frozen=True)
class Steps:
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
class Residues:
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
    def of(window: Steps, low: int, between: int) -> Residues:
        """Of the slices for the elements of the window, the padding before the operand, and the zeros between."""
        apart = between + 1
        met = [[(k, r + k * window.apart - low) for k in range(window.count)] for r in range(apart)]
        terms = (tuple((k, at // apart) for k, at in each if at % apart == 0) for each in met)
        return Residues(apart, -(-window.size // apart), tuple(terms))

    @property
    def first(self) -> int:
        """The first element of the operand that is read; if it is negative, zeros are before the operand."""
        return min(offset for each in self.terms for _, offset in each)

    @property
    def end(self) -> int:
        """One after the last element that is read."""
        return max(offset for each in self.terms for _, offset in each) + self.count


class Convolution:
    """A convolution, with its operands in the order of axes in which its forms read them.

    Attributes:
      op: the `stablehlo.convolution`.
      of_window: the slices of the operand for the elements of the window, by axis of space.
      of_places: those for the places of the window.
      batch, channels, features: the sizes of the axes that are not of space.
      space, padding: the operand's axes of space: their sizes, and the zeros before and behind them.
      is_dense: whether neither the operand nor the window has zeros between its elements.
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
        self.batch, *self.space, self.channels = _sizes(op.operands[0], self._operand)
        _, *window, self.features = _sizes(op.operands[1], self._window)
        places = _sizes(op.results[0], self._result)[1:-1]
        rank = len(window)
        strides, dilations = (axis_numbers(op, name, rank) for name in ("window_strides", "rhs_dilation"))
        spread = axis_numbers(op, "lhs_dilation", rank)
        self.padding = [(int(low), int(high)) for low, high in paddings(op, rank)]
        self._padding = [(*each, step - 1) for each, step in zip(self.padding, spread, strict=True)]
        self.is_dense = max(*dilations, *spread) == 1
        padded = zip(self.space, self._padding, strict=True)
        self.size = math.prod(size + (size - 1) * between + low + high for size, (low, high, between) in padded)
        axes = list(zip(window, dilations, places, strides, strict=True))
        self.of_window = [Steps(elements, dilation, count, stride) for elements, dilation, count, stride in axes]
        self.of_places = [Steps(count, stride, elements, dilation) for elements, dilation, count, stride in axes]
        self.residues: list[Residues] | None = None
        if max(strides) == 1 < max(spread):
            self.residues = [
                Residues.of(steps, low, between)
                for steps, (low, _, between) in zip(self.of_window, self._padding, strict=True)
            ]
            self.size = math.prod(each.end - each.first for each in self.residues)

    def operand(self, beside: int, *, first: bool) -> ir.Value:
        """The operand, with its batch (0) or its channels (-1) as the last axis, or as the first before the other."""
        return _moved(self.op.operands[0], _with_end(self._operand, beside, first=first))

    def window(self, *, channels_first: bool) -> ir.Value:
        """The window, as [space..., channels, features] or [channels, space..., features]."""
        channels, *space, features = self._window
        order = [channels, *space, features] if channels_first else [*space, channels, features]
        return build.transpose(self.op.operands[1], order)

    def large_window(self, *, first: bool) -> ir.Value:
        """A window as large as the operand, as [features, channels, space...] or [channels, space..., features]."""
        return _moved(self.op.operands[1], _with_end(self._window, -1, first=first))

    def padded(self, value: ir.Value, space: int) -> ir.Value:
        """A tensor with the operand's axes of space from axis `space` on, with the zeros of the operand's padding."""
        rank = len(shape_of(value))
        after = rank - space - len(self._padding)
        low, high, between = ([*[0] * space, *each, *[0] * after] for each in zip(*self._padding, strict=True))
        return build.pad(value, build.constant(0, element_type(value)), low, high, between)

    def result(self, value: ir.Value, order: Sequence[int]) -> ir.Value:
        """The result, of a tensor whose axes are those of [batch, space..., features] in another order."""
        placed = [self._result[axis] for axis in order]
        return _moved(value, [placed.index(axis) for axis in range(len(placed))], after=True)

    def is_first(self, beside: int) -> bool:
        """Whether the batch (0) or the channels (-1) of the operand come before its axes of space in memory."""
        return _is_first(self._operand, beside) or shape_of(self.op.operands[0])[self._operand[beside]] == 1

    @property
    def has_features_first(self) -> bool:
        """Whether the features of the result come before its axes of space in memory."""
        return _is_first(self._result, -1)

    @property
    def has_window_first(self) -> bool:
        """Whether the features of the window come before its axes of space in memory."""
        return _is_first(self._window, -1)


def _sizes(value: ir.Value, axes: Sequence[int]) -> list[int]:
    return [shape_of(value)[axis] for axis in axes]


def _is_first(axes: Sequence[int], end: int) -> bool:
    """Whether the first or the last of these axes comes before those between them."""
    return axes[end] < min(axes[1:-1])


def _with_end(axes: Sequence[int], end: int, *, first: bool) -> list[int]:
    """The axes with the first (0) or the last (-1) of them at the end, or before all others."""
    moved, other = axes[end], axes[-1 - end]
    return [moved, other, *axes[1:-1]] if first else [other, *axes[1:-1], moved]


def _moved(value: ir.Value, order: Sequence[int], *, after: bool = False) -> ir.Value:
    """The transposed value, in a dispatch apart from the product that reads it, or that makes it (`after`).

    IREE would read or write the product transposed, as one of many small matrices, and not pack its operands.
    """
    long = [axis for axis in order if shape_of(value)[axis] > 1]
    if long == sorted(long):
        return build.transpose(value, order)
    return build.transpose(build.clone(value), order) if after else build.clone(build.transpose(value, order))
