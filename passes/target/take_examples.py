"""Add exports that take a batch from a data set on the device, by the indices of its examples.

A training loop then keeps the data set on the device in its own type, and hands over 4 bytes an example:

    take_uint8_float32_100x784(data: [?, 784] uint8, indices: [100] int32) -> [100, 784] float32

There is one for each kind of field of the batches that the exports take (`sonew_compiled/contract.py`, `takes_of`).
The data have any number of rows, which is a dynamic size. So this pass is the last of a target: none of the others
sees such a size.

uint8 becomes x / 255 as the host computes it, to the last bit. GPUs round quotients in several ways, so the quotients
are a table there.

Processors copy the rows in a kernel of vectors, where a row fills one. IREE 3.13 reads the elements of a gather one by
one, which takes longer than NumPy does on one core.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sonew_compiled.contract import LOOPED, NAME_ATTRIBUTE, TRAIN_STEP, Role, takes_of
from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.attributes import text_attribute
from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.convert import convert
from sonew_compiled.passes.ir.exports import begin_export, finish_export, label
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.signature import dtype_of, type_of
from sonew_compiled.passes.ir.types import element_type, shape_of
from sonew_compiled.passes.record import Option, Pass
from sonew_compiled.passes.rows.loops import Loop, arith, index, index_attribute, index_type
from sonew_compiled.passes.rows.memory import buffer_type, lane_type
from sonew_compiled.passes.rows.stream_executable import StreamExecutable
from sonew_compiled.passes.rows.vectors import Vectors

_EXECUTABLE = "takes"
# The elements of a workgroup at least, and the rows of memory that a kernel declares; nothing checks the latter.
_ELEMENTS = 1 << 13
_ROWS = 1 << 31
_WHITE = 255


@dataclass(frozen=True, kw_only=True)
class _Take:
    """An export: its name, the element types of the data and of the field, and the field's shape."""

    name: str
    data: ir.Type
    element: ir.Type
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The elements of an example."""
        return math.prod(self.shape[1:])


def take_examples(module: ir.Module, *, lanes: int) -> None:
    """Add the exports for all fields of the batches of a module that trains.

    Args:
      module: the module, changed in place.
      lanes: the elements of a kernel's vector; 0 to leave all to the compiler.
    """
    takes = _takes(module)
    kernels = {take.name for take in takes if lanes and take.size >= lanes}
    executable = None
    if kernels:
        module.context.allow_unregistered_dialects = True
        with ir.InsertionPoint.at_block_begin(module.body):
            executable = StreamExecutable(_EXECUTABLE)
    for take in takes:
        with ir.InsertionPoint(module.body):
            if executable is not None and take.name in kernels:
                _add_kernel(take, executable, Vectors(lanes))
            else:
                _add(take)


def _takes(module: ir.Module) -> list[_Take]:
    exports = {function.name: function for function in functions(module) if function.is_public}
    takes: dict[str, _Take] = {}
    for function in (exports[name] for name in LOOPED if name in exports and TRAIN_STEP in exports):
        for value, attributes in zip(function.arguments, function.argument_attributes, strict=True):
            if Role.BATCH.holds(text_attribute(attributes, NAME_ATTRIBUTE)):
                shape, element = tuple(shape_of(value)), element_type(value)
                for data, name in takes_of(shape, dtype_of(element)).items():
                    takes[name] = _Take(name=name, data=type_of(data), element=element, shape=shape)
    return list(takes.values())


def _begin(take: _Take, data: ir.Type) -> tuple[ir.Operation, ir.Block]:
    """The export of the data and the indices, still without a body."""
    rows = ir.RankedTensorType.get([ir.ShapedType.get_dynamic_size(), take.size], data)
    return begin_export(take.name, [rows, ir.RankedTensorType.get([take.shape[0]], _i32())])


def _finish(function: ir.Operation, taken: ir.Value) -> None:
    create("func.return", [taken])
    inputs = [label(name, Role.BATCH) for name in ("data", "indices")]
    finish_export(function, inputs, [label(Role.BATCH.root, Role.BATCH)])


def _add(take: _Take) -> None:
    """An export that the compiler makes code of."""
    function, block = _begin(take, take.data)
    with ir.InsertionPoint(block):
        data, indices = block.arguments
        taken = build.slices_at(data, indices)
        if take.data != take.element:
            # IREE 3.13 takes a byte that becomes an index for a signed one on Vulkan, but not one that becomes float32.
            number = convert(convert(taken, ir.F32Type.get()), _i32())
            taken = build.slices_at(_quotients(), number)
        _finish(function, build.reshape(taken, take.shape))


def _quotients() -> ir.Value:
    """The 256 bytes over 255."""
    table = ir.DenseElementsAttr.get(np.arange(256, dtype=np.float32) / np.float32(_WHITE))
    return create("stablehlo.constant", results=[table.type], attributes={"value": table}).result


def _add_kernel(take: _Take, executable: StreamExecutable, vectors: Vectors) -> None:
    """An export that dispatches a kernel; `flow.dispatch` takes signless integers."""
    count = max(1, _ELEMENTS // take.size)
    kernel = executable.add(take.name, bindings=3, groups=math.ceil(take.shape[0] / count))
    with ir.InsertionPoint(kernel.regions[0].blocks[0]):
        _copy_rows(take, kernel.regions[0].blocks[0].arguments, count, vectors)
        create("func.return")
    function, block = _begin(take, lane_type(take.data))
    with ir.InsertionPoint(block):
        rows = create("tensor.dim", [block.arguments[0], index(0)], [index_type()]).result
        attributes = {
            "entry_points": ir.ArrayAttr.get([executable.entry(take.name)]),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 2, 1, 0]),
        }
        result = ir.RankedTensorType.get(take.shape, lane_type(take.element))
        _finish(function, create("flow.dispatch", [*block.arguments, rows], [result], attributes).result)


def _copy_rows(take: _Take, bindings: Iterable[ir.Value], count: int, vectors: Vectors) -> None:
    """The body of a kernel, each of whose workgroups copies `count` rows."""
    zero, one, rows, size = (index(each) for each in (0, 1, take.shape[0], take.size))
    places = ((_ROWS * take.size, take.data), (take.shape[0], _i32()), (math.prod(take.shape), take.element))
    data, indices, stored = (
        create("stream.binding.subspan", [binding, zero], [buffer_type(*place)]).result
        for binding, place in zip(bindings, places, strict=True)
    )
    dimension = {"dimension": index_attribute(0)}
    workgroup = create("stream.dispatch.workgroup.id", results=[index_type()], attributes=dimension).result
    low = arith("muli", workgroup, index(count))
    each = Loop(low, arith("minsi", arith("addi", low, index(count)), rows), one, [])
    with ir.InsertionPoint(each.body):
        number = create("memref.load", [indices, each.variable], [_i32()]).result
        row = create("arith.index_cast", [number], [index_type()]).result
        source, into = (arith("muli", at, size) for at in (row, each.variable))

        def copy(column: ir.Value) -> None:
            value = vectors.load(data, arith("addi", source, column), take.data)
            if take.data != take.element:
                wide = create("arith.uitofp", [value], [vectors.type(take.element)]).result
                value = vectors.binary("arith.divf", wide, vectors.constant(_WHITE, take.element))
            vectors.store(value, stored, arith("addi", into, column), take.element)

        whole = take.size // vectors.lanes * vectors.lanes
        columns = Loop(zero, index(whole), index(vectors.lanes), [])
        with ir.InsertionPoint(columns.body):
            copy(columns.variable)
            columns.finish([])
        if whole < take.size:
            # The last vector overlaps the one before, and stores the same numbers again.
            copy(index(take.size - vectors.lanes))
        each.finish([])


def _i32() -> ir.Type:
    return ir.IntegerType.get_signless(32)


PASS = Pass(
    name="take-examples",
    summary="add exports that take a batch from a data set on the device",
    description=__doc__,
    run=take_examples,
    options=(
        Option(name="lanes", default=0, help="elements of a vector of a processor's kernel; 0 for none", read=int),
    ),
)
