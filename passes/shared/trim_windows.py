"""Trim the operand and drop the stride where a window has only one place along an axis.

IREE 3.13 takes the stride of such a window for a dilation: a strided convolution then reads beyond its input, and a
pooling reads other elements. The pass cuts off what the window does not cover, the padding first.

    convolution(x[N, 5, C], w[3, C, K]), stride 3  becomes  convolution(x[N, 0:3, C], w), stride 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import axis_numbers, paddings
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """The windows of an operation.

    Attributes:
      inputs: the numbers of the operands that the windows move over.
      axes: the axes of the operands, in the order of the numbers in the operation's attributes.
      places: the places of the window along each of these axes.
      sizes: the size of the window along each of these axes.
      spread: the attribute that dilates the operands with zeros.
      dilation: the attribute that dilates the window.
    """

    inputs: Sequence[int]
    axes: Sequence[int]
    places: Sequence[int]
    sizes: Sequence[int]
    spread: str
    dilation: str


def trim_windows(module: ir.Module) -> None:
    """Trim the operands of every convolution and pooling along strided axes whose output has size 1."""
    for op in operations_in(module.operation):
        if "window_strides" not in op.attributes:
            continue
        if op.name == "stablehlo.convolution":
            _trim(op, _of_convolution(op))
        elif op.name == "stablehlo.reduce_window":
            _trim(op, _of_pooling(op))


def _of_convolution(op: ir.Operation) -> _Windows:
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    window, result = shape_of(op.operands[1]), shape_of(op.results[0])
    return _Windows(
        inputs=(0,),
        axes=list(numbers.input_spatial_dimensions),
        places=[result[axis] for axis in numbers.output_spatial_dimensions],
        sizes=[window[axis] for axis in numbers.kernel_spatial_dimensions],
        spread="lhs_dilation",
        dilation="rhs_dilation",
    )


def _of_pooling(op: ir.Operation) -> _Windows:
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["window_dimensions"]))
    return _Windows(
        inputs=range(len(op.results)),
        axes=range(len(sizes)),
        places=shape_of(op.results[0]),
        sizes=sizes,
        spread="base_dilations",
        dilation="window_dilations",
    )


def _trim(op: ir.Operation, windows: _Windows) -> None:
    rank = len(windows.axes)
    strides = list(ir.DenseI64ArrayAttr(op.attributes["window_strides"]))
    alone = [axis for axis in range(rank) if strides[axis] != 1 and windows.places[axis] == 1]
    if not alone:
        return
    spread, dilation = (axis_numbers(op, name, rank) for name in (windows.spread, windows.dilation))
    padding = paddings(op, rank)
    limits = shape_of(op.operands[windows.inputs[0]])
    for axis in alone:
        strides[axis] = 1
        low, high = (int(each) for each in padding[axis])
        at = windows.axes[axis]
        covered = (windows.sizes[axis] - 1) * dilation[axis] + 1
        surplus = low + (limits[at] - 1) * spread[axis] + 1 + high - covered
        of_padding = min(surplus, max(high, 0))
        # An element goes together with the zeros before it. One element stays even if the window covers only padding.
        gone = min((surplus - of_padding) // spread[axis], limits[at] - 1)
        limits[at] -= gone
        padding[axis, 1] = high - surplus + gone * spread[axis]
    with ir.InsertionPoint(op):
        for index in windows.inputs:
            op.operands[index] = build.slice_of(op.operands[index], [0] * len(limits), limits)
    op.attributes["window_strides"] = ir.DenseI64ArrayAttr.get(strides)
    op.attributes["padding"] = ir.DenseIntElementsAttr.get(padding)


PASS = Pass(
    name="trim-windows",
    summary="trim operands along axes on which a window has one place",
    description=__doc__,
    run=trim_windows,
)
