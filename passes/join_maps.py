"""Join elementwise operations that read the same tensors into one that writes all their results.

A compiler joins an operation with what reads its result, but not two that merely read the same: each is a loop of its
own, which loads the common operands again and does common arithmetic again. StableHLO has no elementwise operation with
several results, so the joined one is a `linalg.generic`, whose body holds the StableHLO of all:

    a = map(x, y)        becomes        a, b = linalg.generic(x, y, z)
    b = map(x, z)

jaxlib has no bindings for `linalg`: the operation is made without its dialect, and `iree-compile` is what verifies it.
A portable artifact cannot hold it, so this pass comes last of a target's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sonew_compiled.passes._function import copied, element_type, functions, operations_in, owner, shape_of
from sonew_compiled.passes._mlir import ir, run_mlir_passes
from sonew_compiled.passes._pass import Pass
from sonew_compiled.passes._rows import is_concatenation, is_slice_of_rows, sliced_rows

# What can be computed again at another place for nothing.
_FREE = ("stablehlo.slice", "stablehlo.constant")


def join_maps(module: ir.Module) -> None:
    """Join every `stablehlo.map` with those after it of its shape that read a tensor which it reads.

    One that reads what another writes is joined with it as well, if at the same place: it takes what was just computed.
    Left apart are those that need something computed after the first of them, and those that only a reduction reads,
    which a compiler computes within the reduction.
    """
    module.context.allow_unregistered_dialects = True
    for function in functions(module):
        waiting = [op.operation for op in function.block.operations if op.operation.name == "stablehlo.map"]
        waiting = [op for op in waiting if not _is_for_reduction(op)]
        while waiting:
            places = {op.operation: place for place, op in enumerate(function.block.operations)}
            joined = waiting[:1]
            for op in waiting[1:]:
                if _goes_with(op, joined, places):
                    joined.append(op)
            waiting = [op for op in waiting if op not in joined]
            if len(joined) > 1:
                _join(joined, places)
    run_mlir_passes(module, "builtin.module(func.func(cse))")


def _is_for_reduction(op: ir.Operation) -> bool:
    return all(use.owner.operation.name == "stablehlo.reduce" for use in op.results[0].uses)


def _goes_with(op: ir.Operation, joined: Sequence[ir.Operation], places: Mapping[ir.Operation, int]) -> bool:
    """Whether all are of one shape, it reads a tensor that the first reads, and can be computed where that is."""
    first = joined[0]
    if shape_of(op.results[0]) != shape_of(first.results[0]):
        return False
    if not {_source(each) for each in op.operands} & {_source(each) for each in first.operands}:
        return False
    made = {each.results[0] for each in joined}
    return all(_part(each) in made or _is_there(each, first, places) for each in _read(op))


def _part(value: ir.Value) -> ir.Value:
    """The operand of a concatenation of rows that a slice of it takes just so; else the value itself."""
    op = owner(value)
    whole = None if op is None or not is_slice_of_rows(op) else owner(op.operands[0])
    if op is None or whole is None or not is_concatenation(whole, 0):
        return value
    end = 0
    for part in whole.operands:
        start, end = end, end + shape_of(part)[0]
        if (start, end) == sliced_rows(op):
            return part
    return value


def _source(value: ir.Value) -> ir.Value:
    """What a slice is of."""
    op = owner(value)
    return op.operands[0] if op is not None and op.name == "stablehlo.slice" else value


def _read(op: ir.Operation) -> list[ir.Value]:
    """What the operation takes, and what its body reads from outside."""
    inside = operations_in(op)
    made = {*op.regions[0].blocks[0].arguments, *(result for each in inside for result in each.results)}
    return [*op.operands, *(operand for each in inside for operand in each.operands if operand not in made)]


def _is_there(value: ir.Value, at: ir.Operation, places: Mapping[ir.Operation, int]) -> bool:
    """Whether the value is computed before the operation, or can be from what is."""
    op = owner(value)
    if op is None or places[op] < places[at]:
        return True
    return op.name in _FREE and all(_is_there(each, at, places) for each in op.operands)


def _join(maps: Sequence[ir.Operation], places: Mapping[ir.Operation, int]) -> None:
    """Put one operation in the place of the first of the maps, with the results of all."""
    moved: dict[ir.Value, ir.Value] = {}

    def there(value: ir.Value) -> ir.Value:
        """The value, computed again if its operation comes later."""
        op = owner(value)
        if op is None or places[op] < places[maps[0]]:
            return value
        if value not in moved:
            operands = [there(each) for each in op.operands]
            copy = op.clone()
            for index, operand in enumerate(operands):
                copy.operands[index] = operand
            moved[value] = copy.results[0]
        return moved[value]

    with ir.InsertionPoint(maps[0]):
        results = [op.results[0] for op in maps]
        known = {value: there(value) for op in maps for value in _read(op) if _part(value) not in results}
        operands = list(dict.fromkeys(known[each] for op in maps for each in op.operands if each in known))
        empties = [ir.Operation.create("tensor.empty", results=[each.type]).result for each in results]
        every = [*operands, *empties]
        rank = len(shape_of(results[0]))
        identity = ir.AffineMapAttr.get(ir.AffineMap.get_identity(rank))
        parallel = ir.Attribute.parse("#linalg.iterator_type<parallel>")
        generic = ir.Operation.create(
            "linalg.generic",
            results=[each.type for each in results],
            operands=every,
            attributes={
                "indexing_maps": ir.ArrayAttr.get([identity] * len(every)),
                "iterator_types": ir.ArrayAttr.get([parallel] * rank),
                "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(operands), len(empties)]),
            },
            regions=1,
        )
        body = generic.regions[0].blocks.append(*map(element_type, every))
    with ir.InsertionPoint(body):
        # StableHLO computes on tensors, of no axes here; the arguments for what is written are not read.
        scalars = dict(zip(operands, map(_as_tensor, list(body.arguments)[: len(operands)]), strict=True))
        given: dict[ir.Value, ir.Value] = {}
        for op in maps:
            read = {each: scalars[known[each]] if each in known else given[_part(each)] for each in op.operands}
            given[op.results[0]] = _body(op, known | read)
        ir.Operation.create("linalg.yield", operands=[_as_scalar(each) for each in given.values()])
    for old, new in zip(results, generic.results, strict=True):
        old.replace_all_uses_with(new)
    for op in maps:
        op.erase()


def _body(op: ir.Operation, known: Mapping[ir.Value, ir.Value]) -> ir.Value:
    """What a map computes, written out at the insertion point."""
    block = op.regions[0].blocks[0]
    taken = zip(block.arguments, (known[each] for each in op.operands), strict=True)
    return copied(block, {**known, **dict(taken)})[0]


def _as_tensor(scalar: ir.Value) -> ir.Value:
    kind = ir.RankedTensorType.get([], scalar.type)
    return ir.Operation.create("tensor.from_elements", results=[kind], operands=[scalar]).result


def _as_scalar(tensor: ir.Value) -> ir.Value:
    return ir.Operation.create("tensor.extract", results=[element_type(tensor)], operands=[tensor]).result


PASS = Pass(name="join-maps", summary="join elementwise operations that read the same tensors", run=join_maps)
