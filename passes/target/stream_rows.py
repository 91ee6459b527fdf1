"""Compute elementwise operations on shifted matrices and activations, and their reductions, in kernels over rows.

A shifted matrix takes elements of earlier or later rows, as SONew's statistics do along a chain of weights. IREE writes
each shifted matrix out before it is read, and makes a separate loop for each reduction. Here one kernel computes
everything between two reductions: it reads each matrix once, shifts by reading other rows, accumulates the reductions,
and overwrites a donated matrix with its result. A matrix that is a part of a vector, such as a gradient of a bucket, is
read in its place, where IREE would copy it. A kernel computes the scalars that it needs from earlier reductions:

    y = x + shift(x, 1)                   y, p = flow.dispatch @rows_0(x)
    s = reduce(add, y * y)     becomes    z = flow.dispatch @rows_1(y, p)
    z = y / sqrt(s)

Several 16-bit results that elementwise operations alone compute, such as the moments and the weight of Adam, become a
kernel as well, since IREE reads a rounded result again in a separate loop. The kernels of one matrix run one after the
other, while the matrix is in the cache.

So do activations: a function of a product and a bias, and, where an instruction rounds to bfloat16, what products read
rounded. IREE divides a matrix that a bias is added to into tiles that cut its rows to pieces, and rounds by integer
arithmetic. A kernel computes what is between two products, reads the bias as a row, and stores a result in float32 and
rounded. Its functions are the polynomials that IREE uses. What IREE computes where it is read, such as a transposed
matrix, keeps an activation from being a kernel, since it would have to be written first.

A kernel overwrites a donated matrix only if it is the matrix's only reader, and reads no row but the one that it
writes: another row may belong to another workgroup. A reduction that reads other rows and keeps two or more matrices
from being overwritten becomes a kernel of its own, which runs after they are overwritten.

The kernels are loops of MLIR's `scf` and `vector` dialects in a `stream.executable`. jaxlib has no bindings for the
dialects `stream` and `flow`: their operations are unregistered here, `iree-compile` verifies them, and a portable
artifact cannot hold them. `passes/rows/README.md` shows how a kernel is laid out.
"""

from __future__ import annotations

from collections.abc import Mapping

from sonew_compiled.passes.ir.broadcasts import merge_broadcasts
from sonew_compiled.passes.ir.calls import inline_calls
from sonew_compiled.passes.ir.function import Function, erase_unused, functions
from sonew_compiled.passes.ir.mlir import ir, run_mlir_passes
from sonew_compiled.passes.ir.shifts import is_concatenation, is_part_of_shift
from sonew_compiled.passes.ir.types import element_type, shape_of, width_of
from sonew_compiled.passes.ir.uses import owner
from sonew_compiled.passes.record import Option, Pass, read_flag
from sonew_compiled.passes.rows.activations import activation_groups, is_activation
from sonew_compiled.passes.rows.dispatch import dispatch, overwrite_arguments
from sonew_compiled.passes.rows.group import RowGroup
from sonew_compiled.passes.rows.groups import row_groups
from sonew_compiled.passes.rows.kernel import Kernel
from sonew_compiled.passes.rows.layout import Layout, fits, layout_of
from sonew_compiled.passes.rows.phase import Phase
from sonew_compiled.passes.rows.phases import phases_of
from sonew_compiled.passes.rows.reductions import Partial, partials_of
from sonew_compiled.passes.rows.stream_executable import StreamExecutable
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
    """Make kernels for shifted matrices, for several matrices of 16 bits that a function returns, and for activations.

    Functions are inlined into the exports. The pass sees shifts only at the top level of the exports. Matrices that fit
    no kernel stay as they are.

    Args:
      module: the module, changed in place.
      elements: the elements of the smallest matrix that a kernel computes.
      recompute: the most operations that may be repeated for each further offset at which a value is read.
      lanes: the elements of a vector.
      native_bf16: whether the processor rounds to bfloat16 in one instruction, which takes subnormal numbers for zeros.
      bypass: the bytes of the smallest result that is stored past the caches, if it overwrites no operand; 0 for none.
    """
    module.context.allow_unregistered_dialects = True
    inline_calls(module)
    # A value that is computed twice would be read twice.
    run_mlir_passes(module, "builtin.module(func.func(cse))")
    vectors = Vectors(lanes, native_bf16=native_bf16)
    with ir.InsertionPoint.at_block_begin(module.body):
        executable = StreamExecutable(_EXECUTABLE)
    count = 0
    for function in functions(module):
        merge_broadcasts([op.operation for op in function.block.operations])
        _clone_for_each_reader(function)
        _hoist_scalars(function)
        dispatches: dict[ir.Operation, Kernel] = {}
        for group in row_groups(function, elements):
            layouts = _layouts(group, count, recompute, vectors)
            made = dispatch(executable, function, layouts, after=next(reversed(dispatches), None))
            dispatches |= made
            count += len(made)
        for group in activation_groups(function, elements):
            layouts = _activation_layouts(group, count, recompute, vectors)
            dispatches |= dispatch(executable, function, layouts, independent=True)
            count += len(layouts)
        overwrite_arguments(function, dispatches)
        if bypass:
            for kernel in dispatches.values():
                kernel.bypass_caches(bypass)
        erase_unused(function)
    if not count:
        executable.erase()
    run_mlir_passes(module, "builtin.module(func.func(cse))")


def _layouts(group: RowGroup, count: int, recompute: int, vectors: Vectors) -> list[Layout]:
    """The layouts of a shifted group's kernels, in order; none if one of the kernels does not fit."""
    phases = [each for each in phases_of(group, recompute) if _is_worth_a_kernel(each)]
    if not all(fits(each, vectors.lanes) for each in phases):
        return []
    layouts: list[Layout] = []
    partials: dict[ir.Value, Partial] = {}
    for number, phase in enumerate(phases, start=count):
        layout = _layout(phase, number, vectors, partials)
        layouts.append(layout)
        partials |= partials_of(phase.reduced, layout.groups)
    return layouts


def _activation_layouts(group: RowGroup, count: int, recompute: int, vectors: Vectors) -> list[Layout]:
    """The layouts of the kernels of activations; each can do without the others."""
    phases = [each for each in phases_of(group, recompute) if is_activation(each, native_bf16=vectors.native_bf16)]
    fitting = [each for each in phases if fits(each, vectors.lanes)]
    return [_layout(phase, number, vectors, {}) for number, phase in enumerate(fitting, start=count)]


def _layout(phase: Phase, number: int, vectors: Vectors, partials: Mapping[ir.Value, Partial]) -> Layout:
    return layout_of(f"rows_{number}_{phase.group.rows}x{phase.group.columns}", phase, vectors, partials)


def _is_worth_a_kernel(phase: Phase) -> bool:
    """Whether a phase shifts, reduces, has several results of 16 bits, or reads only values that kernels stored."""
    if phase.has_shifts() or phase.reduced or phase.group.gives_halves(phase.stored):
        return True
    return all(owner(each) is None or each in phase.known for each in phase.inputs())


def _clone_for_each_reader(function: Function) -> None:
    """Give each reader its own copy of slices and widened arguments; equal copies are merged in the end.

    A copy that only a group reads is thereby the group's own. And a kernel then reads a weight as it is stored, not as
    it was converted for the products.
    """
    for op in reversed([each.operation for each in function.block.operations]):
        is_cut = is_part_of_shift(op) and not is_concatenation(op, 0)
        if is_cut or _widens_an_argument(op):
            for use in list(op.results[0].uses)[1:]:
                with ir.InsertionPoint(op):
                    use.owner.operation.operands[use.operand_number] = op.clone().results[0]


def _widens_an_argument(op: ir.Operation) -> bool:
    if op.name != "stablehlo.convert" or owner(op.operands[0]) is not None:
        return False
    return width_of(element_type(op.results[0])) >= width_of(element_type(op.operands[0]))


def _hoist_scalars(function: Function) -> None:
    """Move the computation of scalars, which kernels may read, to just after the last of their operands."""
    # For each operation, the place that it now follows; and for each place, the last operation that was moved there.
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


PASS = Pass(
    name="stream-rows",
    summary="compute operations on shifted matrices and activations in kernels that loop over rows",
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
