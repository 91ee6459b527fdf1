"""Compute elementwise operations over shifted matrices, and what is reduced of them, in loops over their rows.

A compiler writes a shifted matrix out before it is read, and makes a loop of its own of every reduction. Here all that
lies between two reductions is one kernel: it reads every matrix once, shifts by reading other rows, adds up what is
reduced while it goes along, and overwrites a donated matrix with its own result. What is computed of a reduction's
result is computed by the kernels that read it.

    y = x + shift(x, 1)                   y, p = flow.dispatch @rows_0(x)
    s = reduce(add, y * y)     becomes    z = flow.dispatch @rows_1(y, p)
    z = y / sqrt(s)

So are several results of 16 bits that elementwise operations alone compute, such as the moments and the weight of Adam:
a compiler reads a rounded one again for what is computed of it.

The kernels of one matrix follow each other, while it is in the cache: the first of the next one is made to depend on
the last. A compiler would otherwise go through all matrices once for each kernel.

The kernels are of MLIR's `scf` and `vector` dialects, in a `stream.executable` that `iree-compile` compiles for a
processor as it does its own. jaxlib has no bindings for `stream` and `flow`: those few operations are made without
their dialects, and `iree-compile` is what verifies them. A portable artifact cannot hold them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from sonew_compiled.passes.ir.attributes import ALIASED
from sonew_compiled.passes.ir.calls import inline_calls
from sonew_compiled.passes.ir.function import Function, erase_unused, functions
from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.ir.shifts import is_concatenation
from sonew_compiled.passes.ir.types import shape_of
from sonew_compiled.passes.ir.uses import at_top, owner
from sonew_compiled.passes.record import Option, Pass, read_flag
from sonew_compiled.passes.rows.executable import Executable
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.kernel import Kernel, fits
from sonew_compiled.passes.rows.numbers import Partial, partials_of
from sonew_compiled.passes.rows.phases import Phase, phases_of
from sonew_compiled.passes.rows.reductions import FullReduction
from sonew_compiled.passes.rows.vectors import Vectors

_EXECUTABLE = "rows"


def stream_rows(
    module: ir.Module,
    *,
    elements: int,
    recompute: int,
    lanes: int,
    native_bf16: bool,
    bypass: int,
) -> None:
    """Make kernels of matrices of at least `elements` elements that are shifted, or given in 16 bits by twos or more.

    Functions are inlined into the exports. Only shifts at the top level of these are seen. Matrices that `fits` refuses
    stay as they are.

    Args:
      module: is changed in place.
      elements: of the smallest tensor that is not left alone.
      recompute: operations that may be done again for each further shift at which a value is read.
      lanes: elements of a vector.
      native_bf16: whether the processor rounds to bfloat16 in one instruction, which takes subnormal numbers for zeros.
      bypass: bytes of the smallest result that is stored past the caches, if it overwrites no operand; 0 for none.
    """
    module.context.allow_unregistered_dialects = True
    inline_calls(module)
    # What is computed twice would be read twice.
    run_mlir_passes(module, "builtin.module(func.func(cse))")
    vectors = Vectors(lanes, native_bf16=native_bf16)
    with ir.InsertionPoint.at_block_begin(module.body):
        executable = Executable(_EXECUTABLE)
    count = 0
    for function in functions(module):
        _give_each_reader_its_own(function)
        _hoist_numbers(function)
        dispatches: dict[ir.Operation, Kernel] = {}
        for group in RowGroup.find(function, elements):
            kernels = _kernels(group, count, recompute, vectors)
            made = _dispatch(executable, function, kernels, after=next(reversed(dispatches), None))
            dispatches |= made
            count += len(made)
        _overwrite(function, dispatches)
        if bypass:
            for kernel in dispatches.values():
                kernel.bypass_caches(bypass)
        erase_unused(function)
    if not count:
        executable.erase()
    run_mlir_passes(module, "builtin.module(func.func(cse))")


def _kernels(group: RowGroup, count: int, recompute: int, vectors: Vectors) -> list[Kernel]:
    """The kernels of a group, in order; none if one of them cannot be."""
    phases = [each for each in phases_of(group, recompute) if _is_worth_a_kernel(each)]
    if not all(fits(each, vectors.lanes) for each in phases):
        return []
    kernels: list[Kernel] = []
    partials: dict[ir.Value, Partial] = {}
    for index, phase in enumerate(phases, start=count):
        kernel = Kernel(f"rows_{index}_{group.rows}x{group.columns}", phase, vectors, partials)
        kernels.append(kernel)
        partials |= partials_of(phase.reduced, kernel.groups)
    return kernels


def _is_worth_a_kernel(phase: Phase) -> bool:
    """Whether it shifts or reduces, gives several results of 16 bits, or only goes on with what kernels have stored."""
    if phase.has_shifts() or phase.reduced or phase.group.gives_halves(phase.stored):
        return True
    return all(owner(each) is None or each in phase.known for each in phase.leaves())


def _give_each_reader_its_own(function: Function) -> None:
    """Slices and widened arguments, so that what only a group reads is seen to be its own; equal ones end as one.

    A kernel that goes on from a weight then reads it as it is stored, and not what the products have made of it.
    """
    for op in reversed([each.operation for each in function.block.operations]):
        cut = op.name in ("stablehlo.slice", "stablehlo.concatenate") and not is_concatenation(op, 0)
        if cut or (op.name == "stablehlo.convert" and owner(op.operands[0]) is None):
            for use in list(op.results[0].uses)[1:]:
                with ir.InsertionPoint(op):
                    use.owner.operation.operands[use.operand_number] = op.clone().results[0]


def _hoist_numbers(function: Function) -> None:
    """Compute numbers, which kernels may read, where the last is there of what they are computed from."""
    # Behind which operation each is now, by its place; and the last that was put there.
    behind: dict[ir.Operation, int] = {}
    last: dict[int, ir.Operation] = {}
    for place, op in enumerate([each.operation for each in function.block.operations]):
        behind[op], last[place] = place, op
        values = [*op.operands, *op.results]
        if not op.name.startswith("stablehlo.") or list(op.regions) or any(map(shape_of, values)):
            continue
        at = max((behind[each] for each in map(owner, op.operands) if each is not None), default=-1)
        if at in last:
            op.move_after(last[at])
        elif (first := next(iter(function.block.operations)).operation) != op:
            op.move_before(first)
        behind[op], last[at] = at, op


def _dispatch(
    executable: Executable, function: Function, kernels: Sequence[Kernel], *, after: ir.Operation | None
) -> dict[ir.Operation, Kernel]:
    """Make the kernels of a group and their dispatches, and give readers what these give; nothing if there is no place.

    A dispatch comes where the last is there of what it reads, which must be before anything that reads what it gives.
    The first also takes a result of the dispatch `after`, if that is early enough.
    """
    if not kernels:
        return {}
    group = kernels[0].phase.group
    places: dict[ir.Operation, float] = {op.operation: place for place, op in enumerate(function.block.operations)}
    moved: dict[ir.Value, float] = {}
    computed = {op for kernel in kernels for op in kernel.phase.operations()}
    # Where what each gives is first read by others.
    read = [
        min((places[op] for op in _readers(kernel) - computed - group.beside), default=math.inf) for kernel in kernels
    ]
    if after is not None and places[after] < min(read):
        kernels[0].after = after.results[0]
    lasts: list[ir.Operation | None] = []
    for kernel, first_read in zip(kernels, read, strict=True):
        last: ir.Operation | None = None
        for value in kernel.operands():
            op = owner(value)
            if value not in moved and op is not None and (last is None or places[op] > places[last]):
                last = op
        place = max([places[last] if last is not None else -1, *(moved.get(each, -1) for each in kernel.operands())])
        if first_read <= place:
            return {}
        lasts.append(last)
        moved |= dict.fromkeys([*kernel.phase.stored, *(each.result for each in kernel.reductions())], place)
    given: dict[ir.Value, ir.Value] = {}
    partial: dict[FullReduction, ir.Value] = {}
    made = {}
    for kernel, last in zip(kernels, lasts, strict=True):
        kernel.create(executable)
        parts = {each.result: result for each, result in partial.items()}
        operands = [parts.get(each, given.get(each, each)) for each in kernel.operands()]
        with _after([last, *map(owner, operands)], function):
            dispatch = ir.Operation.create(
                "flow.dispatch",
                results=kernel.results(),
                operands=operands,
                attributes={
                    "entry_points": ir.ArrayAttr.get([executable.entry(kernel.symbol)]),
                    "operandSegmentSizes": ir.DenseI32ArrayAttr.get([0, len(operands), 0, 0]),
                },
            )
        made[dispatch] = kernel
        results = iter(dispatch.results)
        given |= {value: next(results) for value in kernel.phase.stored}
        partial |= zip(kernel.reductions(), results, strict=True)
    for reduction, result in partial.items():
        reduction.reduce_partial(result)
    for value, result in given.items():
        value.replace_all_uses_with(result)
    for op in reversed(group.inside):
        if not list(op.results[0].uses):
            op.erase()
    return made


def _readers(kernel: Kernel) -> set[ir.Operation]:
    """What reads what the kernel gives, or has a region that does, now that this is not yet made by it."""
    return {at_top(use.owner.operation) for value in kernel.phase.results for use in value.uses}


def _after(ops: Iterable[ir.Operation | None], function: Function) -> ir.InsertionPoint:
    """Where all of these have come."""
    there = {op for op in ops if op is not None}
    last = None
    for op in function.block.operations:
        if op.operation in there:
            last = op.operation
    return ir.InsertionPoint.at_block_begin(function.block) if last is None else ir.InsertionPoint.after(last)


def _overwrite(function: Function, dispatches: Mapping[ir.Operation, Kernel]) -> None:
    """Let kernels write results to the memory of donated arguments that nobody else reads, and in no other row.

    Of other results that a kernel writes the alias is taken away: it would be written before all is read.
    """
    tied: dict[ir.Operation, dict[int, int]] = {op: {} for op in dispatches}
    for argument, attributes in zip(function.arguments, function.argument_attributes, strict=True):
        if ALIASED not in attributes:
            continue
        value = function.returned[ir.IntegerAttr(attributes[ALIASED]).value]
        op = owner(value)
        if op is None or op not in tied:
            continue
        readers = {use.owner.operation for use in argument.uses}
        if readers == {op} and argument in dispatches[op].own:
            tied[op][list(op.results).index(value)] = list(op.operands).index(argument)
        else:
            del attributes[ALIASED]
    index = ir.IndexType.get()
    for op, kernel in dispatches.items():
        kernel.overwrite(tied[op])
        operands = [tied[op].get(number, -1) for number in range(len(op.results))]
        op.attributes["tied_operands"] = ir.ArrayAttr.get([ir.IntegerAttr.get(index, each) for each in operands])
    function.finish()


PASS = Pass(
    name="stream-rows",
    summary="compute what reads shifted rows in loops over the rows",
    description=__doc__,
    run=stream_rows,
    options=(
        Option(
            name="elements",
            default=1024,
            help="elements of the smallest matrix that a kernel computes",
            read=int,
        ),
        Option(
            name="recompute",
            default=32,
            help="operations that may be done again for each further shift at which a value is read",
            read=int,
        ),
        Option(
            name="lanes",
            default=16,
            help="elements of a vector",
            read=int,
        ),
        Option(
            name="native_bf16",
            default=False,
            help="1 for a processor that rounds to bfloat16 in one instruction, and takes subnormal numbers for zeros",
            read=read_flag,
        ),
        Option(
            name="bypass",
            default=0,
            help="bytes of the smallest result that is stored past the caches; 0 for none",
            read=int,
        ),
    ),
)
