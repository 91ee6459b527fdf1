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
slices of its own. If the layer has fewer features than channels, the operands are exchanged, and the slices are those
of the gradient of its result.

The third form is for results with fewer features than the operand, as in the gradient of a layer's operand. It first
makes the product of the operand and each element of the window, nine times as many features as the result has, and adds
slices of that. If the layer has strides, its gradient convolves an operand with zeros between its elements. The zeros
are left out: with strides of 2 the elements of an axis of the result with even and with odd indices are sums of
different elements of the window, which are made apart and interleaved.

Slices lie side by side in the last axis. Where the channels come before the axes of space (PyTorch's order), or there
is but one, they do in the first, so that a slice is copied in long pieces. What is transposed is copied apart from the
product (`flow.tensor.clone`): IREE would fuse the two to many small products, whose operands it does not pack.

A convolution of groups stays, as do one of too many positions and one whose slices are too large.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.convolution import Convolution, Residues, Steps
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import element_type, is_float, shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Option, Pass


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
            convolution = Convolution(op)
            if _is_longer(convolution):
                op = _with_operands_exchanged(op)
                convolution = Convolution(op)
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


# A batch, channels and one axis of space.
_RANK = 3


def _is_plain(op: ir.Operation) -> bool:
    """Whether it has axes of space, no groups, no reversed window and no empty tensor, and multiplies floats."""
    if len(shape_of(op.results[0])) < _RANK:
        return False
    if any(ir.IntegerAttr(op.attributes[f"{kind}_group_count"]).value != 1 for kind in ("feature", "batch")):
        return False
    if "window_reversal" in op.attributes and any(ir.DenseBoolArrayAttr(op.attributes["window_reversal"])):
        return False
    tensors = (*op.operands, *op.results)
    return all(math.prod(shape_of(each)) and isinstance(element_type(each), ir.FloatType) for each in tensors)


def _is_longer(convolution: Convolution) -> bool:
    """Whether the second form's slices of the operand are more elements than such slices of the window would be."""
    if _count(convolution.of_places) >= _count(convolution.of_window) or not convolution.is_dense:
        return False
    return convolution.features * math.prod(convolution.space) < convolution.batch * _count(convolution.of_window)


def _with_operands_exchanged(op: ir.Operation) -> ir.Operation:
    """The convolution of the window with the operand, whose places are those of `op` in reverse, in place of `op`.

    The window's element `k` meets the operand's element `q = strides * p + k - low` in place `p`. In place
    `places - 1 - p` the operand's element `q` meets the window's element `strides * p + q - (strides * (places - 1) -
    low)`.
    """
    old = Convolution(op)
    padding = []
    for size, steps, (low, _) in zip(old.space, old.of_places, old.padding, strict=True):
        reach = steps.apart * (steps.count - 1)
        padding.append([reach - low, size - steps.size + low])
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    with ir.InsertionPoint(op):
        new = op.clone()
        new.operands[0], new.operands[1] = op.operands[1], op.operands[0]
        new.attributes["padding"] = ir.DenseIntElementsAttr.get(np.array(padding, np.int64))
        new.attributes["dimension_numbers"] = stablehlo.ConvDimensionNumbers.get(
            input_batch_dimension=numbers.kernel_output_feature_dimension,
            input_feature_dimension=numbers.kernel_input_feature_dimension,
            input_spatial_dimensions=numbers.kernel_spatial_dimensions,
            kernel_input_feature_dimension=numbers.input_feature_dimension,
            kernel_output_feature_dimension=numbers.input_batch_dimension,
            kernel_spatial_dimensions=numbers.input_spatial_dimensions,
            output_batch_dimension=numbers.output_feature_dimension,
            output_feature_dimension=numbers.output_batch_dimension,
            output_spatial_dimensions=numbers.output_spatial_dimensions,
        )
        reversed_again = build.reverse(new.results[0], numbers.output_spatial_dimensions)
    op.results[0].replace_all_uses_with(reversed_again)
    op.erase()
    return new


def _of_elements(convolution: Convolution) -> ir.Value:
    """The first form: the slices for the elements of the window are summed over."""
    first = convolution.is_first(-1)
    operand = convolution.operand(-1, first=first)
    slices = _side_by_side(convolution.padded(operand, 1 + first), convolution.of_window, first=first)
    left = _matrix(slices, first=first)
    window = convolution.window(channels_first=False)
    flat = build.reshape(window, [math.prod(shape_of(window)[:-1]), convolution.features])
    places = [axis.count for axis in convolution.of_places]
    return _product(convolution, left, flat, (int(not first), 0), places)


def _of_places(convolution: Convolution, *, apart: bool) -> ir.Value:
    """The second form: the slices for the places of the window are kept; `apart` makes them anew."""
    first = convolution.is_first(0)
    operand = convolution.operand(0, first=first)
    if apart:
        (operand,) = build.apart([operand])
    slices = _side_by_side(convolution.padded(operand, 1 + first), convolution.of_places, first=first)
    left = _matrix(slices, first=first)
    window_first = convolution.has_window_first
    right = _matrix(convolution.large_window(first=window_first), first=window_first)
    product = build.product(left, right, (int(first), int(window_first)), element_type(convolution.op.results[0]))
    places = [axis.count for axis in convolution.of_places]
    value = build.reshape(product, [*places, convolution.batch, convolution.features])
    rank = len(places)
    return convolution.result(value, [*range(1, rank + 1), 0, rank + 1])


def _of_products(convolution: Convolution) -> ir.Value:
    """The third form: products of the operand with each element of the window are added at their places."""
    first, features_first = convolution.is_first(-1), convolution.has_features_first
    operand = convolution.operand(-1, first=first)
    space = shape_of(operand)[1 + first : 1 + first + len(convolution.of_window)]
    # The features of each element of the window lie side by side.
    window = convolution.window(channels_first=True)
    wide = build.reshape(window, [convolution.channels, math.prod(shape_of(window)[1:])])
    flat = _matrix(operand, first=first)
    element = element_type(convolution.op.results[0])
    kept = [convolution.batch, *space]
    if features_first:
        product = build.product(wide, flat, (0, int(not first)), element)
        products = build.reshape(product, [shape_of(wide)[1], *kept])
    else:
        product = build.product(flat, wide, (int(not first), 0), element)
        products = build.reshape(product, [*kept, shape_of(wide)[1]])
    if convolution.residues:
        total = _interleaved(products, convolution, convolution.residues, first=features_first)
    else:
        spread = convolution.padded(products, 1 + features_first)
        positions = itertools.product(*(axis.ranges() for axis in convolution.of_window))
        total = _sum(
            _block(spread, ranges, number, convolution.features, first=features_first)
            for number, ranges in enumerate(positions)
        )
    return _placed(convolution, total, first=features_first)


def _interleaved(products: ir.Value, convolution: Convolution, axes: Sequence[Residues], *, first: bool) -> ir.Value:
    """The third form's sums, where the operand has zeros between its elements."""
    rank, features = len(axes), convolution.features
    space = shape_of(products)[1 + first : 1 + first + rank]

    def whole(sizes: Sequence[int], ends: tuple[int, int]) -> list[int]:
        """The sizes of axes of space, between those of the batch and of the features."""
        batch, feature = ends
        return [feature, batch, *sizes] if first else [batch, *sizes, feature]

    low = whole([-axis.first for axis in axes], (0, 0))
    high = whole([axis.end - size for axis, size in zip(axes, space, strict=True)], (0, 0))
    read = build.pad(products, build.constant(0, element_type(products)), low, high)
    counts, apart = [axis.count for axis in axes], [axis.apart for axis in axes]
    window = [steps.count for steps in convolution.of_window]
    ends = convolution.batch, features
    sums = []
    for residues in itertools.product(*(axis.terms for axis in axes)):
        terms = []
        for elements in itertools.product(*residues):
            starts = [offset - axis.first for axis, (_, offset) in zip(axes, elements, strict=True)]
            ranges = [(start, start + axis.count, 1) for axis, start in zip(axes, starts, strict=True)]
            number = int(np.ravel_multi_index([k for k, _ in elements], window))
            terms.append(_block(read, ranges, number, features, first=first))
        sums.append(_sum(terms) if terms else build.constant(0, element_type(products), whole(counts, ends)))
    start = 1 + first
    if first:
        beside = build.concatenate([build.reshape(each, [1, *shape_of(each)]) for each in sums], 0)
        beside = build.reshape(beside, [*apart, *whole(counts, ends)])
        order = [rank, rank + 1, *itertools.chain(*((rank + start + axis, axis) for axis in range(rank)))]
    else:
        beside = build.reshape(build.concatenate(sums, rank + 1), [ends[0], *counts, *apart, features])
        order = [0, *itertools.chain(*((axis, rank + axis) for axis in range(1, rank + 1))), 2 * rank + 1]
    spread = whole([axis.count * axis.apart for axis in axes], ends)
    kept = whole([steps.size for steps in convolution.of_window], ends)
    return build.slice_of(build.reshape(build.transpose(beside, order), spread), [0] * len(kept), kept)


def _block(
    value: ir.Value, ranges: Iterable[tuple[int, int, int]], number: int, features: int, *, first: bool
) -> ir.Value:
    """A slice of each axis of space, and of the features that one element of the window has."""
    shape = shape_of(value)
    own = (number * features, (number + 1) * features, 1)
    within = [own, (0, shape[1], 1), *ranges] if first else [(0, shape[0], 1), *ranges, own]
    return build.slice_of(value, *zip(*within, strict=True))


def _sum(terms: Iterable[ir.Value]) -> ir.Value:
    return functools.reduce(functools.partial(build.elementwise, "add"), terms)


def _side_by_side(value: ir.Value, axes: Sequence[Steps], *, first: bool) -> ir.Value:
    """The slices for all positions side by side in the first or the last axis, of a tensor with axes of space.

    The axes of space are the last ones, or those before the last. One axis comes after the other: that makes the sum of
    their counts of slices, where all at once made the product.
    """
    joined = 0 if first else len(axes) + 1
    for axis, steps in reversed(list(enumerate(axes, 1 + first))):
        shape = shape_of(value)
        parts = []
        for start, end, stride in steps.ranges():
            starts, ends, strides = [0] * len(shape), list(shape), [1] * len(shape)
            starts[axis], ends[axis], strides[axis] = start, end, stride
            parts.append(build.slice_of(value, starts, ends, strides))
        value = build.concatenate(parts, joined)
    return value


def _matrix(value: ir.Value, *, first: bool) -> ir.Value:
    """The tensor as a matrix of its first axis and the others, or of its last axis."""
    shape = shape_of(value)
    return build.reshape(value, [shape[0], math.prod(shape[1:])] if first else [math.prod(shape[:-1]), shape[-1]])


def _product(
    convolution: Convolution, left: ir.Value, window: ir.Value, contracted: tuple[int, int], places: Sequence[int]
) -> ir.Value:
    """The result, from the product of a matrix of the batch and the places, and one of the window's features."""
    element = element_type(convolution.op.results[0])
    if convolution.has_features_first:
        product = build.product(window, left, contracted[::-1], element)
        return _placed(
            convolution, build.reshape(product, [convolution.features, convolution.batch, *places]), first=True
        )
    product = build.product(left, window, contracted, element)
    return _placed(convolution, build.reshape(product, [convolution.batch, *places, convolution.features]), first=False)


def _placed(convolution: Convolution, value: ir.Value, *, first: bool) -> ir.Value:
    """The result, of a tensor [features, batch, space...] or [batch, space..., features]."""
    rank = len(convolution.of_window)
    batch_and_space = range(rank + 1)
    return convolution.result(value, [rank + 1, *batch_and_space] if first else [*batch_and_space, rank + 1])


def _count(axes: Sequence[Steps]) -> int:
    return math.prod(axis.count for axis in axes)


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
