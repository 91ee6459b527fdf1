"""The values that all code of a kernel reads: its memory, its scalars, and its workgroup's rows and columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type
from sonew_compiled.passes.rows.layout import Layout, padded
from sonew_compiled.passes.rows.loops import arith, index, index_attribute, index_type
from sonew_compiled.passes.rows.memory import buffer_type, size_of
from sonew_compiled.passes.rows.scalars import combined
from sonew_compiled.passes.rows.vectors import COMBINATIONS, Combination, Vectors


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """A reduction of the kernel.

    Attributes:
      value: the values that are reduced.
      combine: StableHLO's name of the operation that combines two values.
      memory: where each workgroup stores its partial result.
    """

    value: ir.Value
    combine: str
    memory: ir.Value

    @property
    def combination(self) -> Combination:
        """The operations that combine numbers."""
        return COMBINATIONS[self.combine]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The values at the start of a kernel's function.

    Attributes:
      layout: the kernel's.
      zero, one: indices.
      memory: the inputs' memory.
      scalars: vectors of the loop-invariant scalars, constants left out.
      stored: the memory of the results.
      reduced: the reductions.
      buffers: the line buffers' memory, `LineBuffer.rows` rows of a block each.
      carried: the memory of the rows that are left for the next strip.
      workgroup: the number of the workgroup.
      begin, end: the columns of the workgroup, the end excluded.
      full: the first column that does not fill a vector.
      low, high: the rows of the workgroup, the end excluded.
    """

    layout: Layout
    zero: ir.Value
    one: ir.Value
    memory: Mapping[ir.Value, ir.Value]
    scalars: Mapping[ir.Value, ir.Value]
    stored: Mapping[ir.Value, ir.Value]
    reduced: Sequence[Reduced]
    buffers: Mapping[ir.Value, ir.Value]
    carried: Mapping[ir.Value, ir.Value]
    workgroup: ir.Value
    begin: ir.Value
    end: ir.Value
    full: ir.Value
    low: ir.Value
    high: ir.Value

    @property
    def vectors(self) -> Vectors:
        """The kernel's vectors."""
        return self.layout.vectors

    def scalar(self, value: ir.Value) -> ir.Value:
        """A vector of a scalar, or of the number of a splat."""
        return _scalar(value, self.scalars, self.vectors)


def make_frame(layout: Layout, block: ir.Block) -> Frame:
    """Make the values of the frame at the insertion point.

    Args:
      layout: the kernel's.
      block: the block of its function; the arguments are bindings of the layout's operands, then of its results.
    """
    zero, one = index(0), index(1)
    phase, vectors = layout.phase, layout.vectors
    bindings = iter(block.arguments)
    size = layout.rows * layout.columns
    sizes = {value: layout.columns if value in layout.repeated else size for value in layout.inputs}
    starts = {value: index(part.start * size_of(element_type(value))) for value, part in layout.parts.items()}
    memory = {value: _memory(next(bindings), starts.get(value, zero), each, value) for value, each in sizes.items()}
    scalars = _scalars(layout, bindings, zero)
    if layout.after is not None:
        next(bindings)
    stored = {value: _memory(next(bindings), zero, size, value) for value in phase.stored}
    reduced = [
        Reduced(value=value, combine=each.combine, memory=_memory(next(bindings), zero, layout.groups, value))
        for value, reductions in phase.reduced.items()
        for each in reductions
    ]
    buffers = {value: _rows_on_stack(layout, value, buffer.rows) for value, buffer in phase.buffers.items()}
    carried = {value: _rows_on_stack(layout, value, 1) for value in phase.carried}
    dimension = {"dimension": index_attribute(0)}
    workgroup = create("stream.dispatch.workgroup.id", results=[index_type()], attributes=dimension).result
    piece, begin, end = workgroup, zero, index(layout.columns)
    if layout.blocks > 1:
        blocks = index(layout.blocks)
        piece = arith("divui", workgroup, blocks)
        begin = arith("muli", arith("remui", workgroup, blocks), index(layout.block))
        end = arith("minsi", arith("addi", begin, index(layout.block)), end)
    width = arith("subi", end, begin)
    full = arith("subi", end, arith("remui", width, index(vectors.lanes)))
    low = arith("muli", piece, index(layout.count))
    high = arith("minsi", arith("addi", low, index(layout.count)), index(layout.rows))
    return Frame(
        layout=layout,
        zero=zero,
        one=one,
        memory=memory,
        scalars=scalars,
        stored=stored,
        reduced=reduced,
        buffers=buffers,
        carried=carried,
        workgroup=workgroup,
        begin=begin,
        end=end,
        full=full,
        low=low,
        high=high,
    )


def _scalars(layout: Layout, bindings: Iterator[ir.Value], zero: ir.Value) -> dict[ir.Value, ir.Value]:
    """Vectors of the scalars: the given ones, those combined from partial results, and those computed from both."""
    vectors = layout.vectors
    scalars: dict[ir.Value, ir.Value] = {}
    for value in layout.scalars.given:
        scalars[value] = vectors.scalar(_memory(next(bindings), zero, 1, value), element_type(value))
    for value, partial in layout.scalars.partials.items():
        scalars[value] = combined(partial, vectors, _memory(next(bindings), zero, partial.count, value))
    for op in layout.scalars.operations:
        operands = [_scalar(each, scalars, vectors) for each in op.operands]
        scalars[op.results[0]] = vectors.elementwise(op, operands)
    return scalars


def _scalar(value: ir.Value, scalars: Mapping[ir.Value, ir.Value], vectors: Vectors) -> ir.Value:
    constant = splat_of(value)
    return scalars[value] if constant is None else vectors.constant(constant, element_type(value))


def _rows_on_stack(layout: Layout, value: ir.Value, rows: int) -> ir.Value:
    """Memory on the stack for `rows` rows of a block's columns."""
    return create(
        "memref.alloca",
        results=[buffer_type(rows * padded(layout.block, layout.vectors.lanes), element_type(value))],
        attributes={"operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, 0])},
    ).result


def _memory(binding: ir.Value, start: ir.Value, size: int, like: ir.Value) -> ir.Value:
    """The memory of a binding from byte `start` on: `size` elements of the type that `like` has."""
    return create("stream.binding.subspan", [binding, start], [buffer_type(size, element_type(like))]).result
