"""Make one product of those that the iterations of an unrolled loop make of the same matrix, or sum.

A recurrence multiplies each of its inputs with the same weights, and the gradient of weights is a sum of one product
for each iteration. Each is a small product, with a dispatch for it and for the packing of each operand.

    %y0 = dot_general(xs[0], %w), %y1 = dot_general(xs[1], %w), ...
becomes
    %ys = dot_general(xs, %w), of which %y0 is ys[0], ...

and

    %g = dot_general(%a0, %b0) + dot_general(%a1, %b1) + ...
becomes
    %g = dot_general(%a0 and %a1 and ... side by side, %b0 and %b1 and ... side by side)

where the products, or sums along axes, may be transposed, reshaped or cut alike before they are added. Numbers are then
added in another order.

The first state of a recurrence is mostly zeros. IREE 3.13 would make a loop over all elements of its product with the
weights, which takes longer than all other products of an LSTM together; so there is a barrier between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sonew_compiled.passes.ir import build
from sonew_compiled.passes.ir.constants import is_splat, splat_of
from sonew_compiled.passes.ir.function import erase_unused, functions
from sonew_compiled.passes.ir.known import known_integers, known_starts
from sonew_compiled.passes.ir.mlir import ir, stablehlo
from sonew_compiled.passes.ir.products import dot_numbers
from sonew_compiled.passes.ir.types import element_type, shape_of, width_of
from sonew_compiled.passes.ir.uses import operations_in, owner
from sonew_compiled.passes.record import Option, Pass

_PRODUCT = "stablehlo.dot_general"
_SUM = "stablehlo.reduce"
_MOVES = ("stablehlo.transpose", "stablehlo.reshape", "stablehlo.slice")


def join_products(module: ir.Module, *, alike: int) -> None:
    """Join products at the top of each function.

    Args:
      module: the module, changed in place.
      alike: the products from which on they are joined.
    """
    for function in functions(module):
        operations = [each.operation for each in function.block.operations]
        if sum(op.name == _PRODUCT for op in operations) >= alike:
            rows = _Rows(operations)
            changed = _join_rows(operations, rows, alike)
            changed |= _join_sums(operations, rows, alike)
            if changed:
                _hide_first_states(operations)
                erase_unused(function)


def _hide_first_states(operations: Sequence[ir.Operation]) -> None:
    """Put a barrier between each tensor of one number throughout and the products that multiply it."""
    for op in operations:
        if op.name == _PRODUCT and is_splat(op.operands[0]):
            with ir.InsertionPoint(op):
                (op.operands[0],) = build.apart([op.operands[0]])


class _Rows:
    """The rows of tensors that operations of a block read: slices of one element along the leading axis.

    An operation's result is the row itself or has the axis left out.
    """

    def __init__(self, operations: Sequence[ir.Operation]) -> None:
        self._known = known_integers(operations)

    def of(self, value: ir.Value) -> tuple[ir.Value, int] | None:
        """The tensor and the number of the row without its leading axis that a value is."""
        reshape = owner(value)
        if reshape is None or reshape.name != "stablehlo.reshape":
            return None
        part = owner(reshape.operands[0])
        if part is None or part.name != "stablehlo.dynamic_slice":
            return None
        source, sizes = part.operands[0], shape_of(part.results[0])
        if sizes != [1, *shape_of(source)[1:]] or shape_of(value) != sizes[1:]:
            return None
        starts = known_starts(part.operands[1:], shape_of(source), sizes, self._known)
        return None if starts is None else (source, starts[0])

    def whole(self, values: Sequence[ir.Value]) -> ir.Value | None:
        """The tensor whose rows, all of them and in order, the values are."""
        found = [each for value in values if (each := self.of(value)) is not None]
        if len(found) < len(values) or any(source != found[0][0] for source, _ in found):
            return None
        source = found[0][0]
        return source if [row for _, row in found] == list(range(shape_of(source)[0])) else None


def _is_plain(op: ir.Operation) -> bool:
    """Whether it is a product without batches that contracts one axis of each operand."""
    if op.name != _PRODUCT:
        return False
    numbers = dot_numbers(op)
    return not list(numbers.lhs_batching_dimensions) and len(list(numbers.lhs_contracting_dimensions)) == 1


def _join_rows(operations: Sequence[ir.Operation], rows: _Rows, alike: int) -> bool:
    """Join the products of all rows of a tensor with the same value."""
    groups: dict[tuple[ir.Value, ir.Value, str, str], dict[int, ir.Operation]] = {}
    for op in operations:
        if _is_plain(op) and (found := rows.of(op.operands[0])) is not None:
            source, row = found
            key = (source, op.operands[1], str(op.attributes["dot_dimension_numbers"]), str(op.results[0].type))
            groups.setdefault(key, {}).setdefault(row, op)
    changed = False
    for (source, *_), products in groups.items():
        if len(products) < alike or len(products) < shape_of(source)[0]:
            continue
        first = next(iter(products.values()))
        shape = shape_of(first.results[0])
        with ir.InsertionPoint(first):
            numbers = dot_numbers(first)
            (contracted,) = list(numbers.lhs_contracting_dimensions)
            together = first.clone()
            together.operands[0] = source
            together.attributes["dot_dimension_numbers"] = stablehlo.DotDimensionNumbers.get(
                lhs_batching_dimensions=[],
                rhs_batching_dimensions=[],
                lhs_contracting_dimensions=[contracted + 1],
                rhs_contracting_dimensions=list(numbers.rhs_contracting_dimensions),
            )
            together.results[0].set_type(
                ir.RankedTensorType.get([shape_of(source)[0], *shape], element_type(first.results[0]))
            )
        for row, product in products.items():
            with ir.InsertionPoint(product):
                part = build.reshape(build.rows(together.results[0], row, row + 1), shape)
            product.results[0].replace_all_uses_with(part)
        changed = True
    return changed


@dataclass(frozen=True)
class _Term:
    """What is added to a sum.

    Attributes:
      leaf: the product, or the sum along axes, from which it comes.
      moves: the operations of one operand between the two, from the leaf on.
    """

    leaf: ir.Operation
    moves: tuple[ir.Operation, ...]

    @property
    def kind(self) -> tuple[str, ...]:
        """Equal for terms that are made alike of tensors of the same types."""
        return tuple(_signature(each) for each in (self.leaf, *self.moves))


def _signature(op: ir.Operation) -> str:
    inner = [each.name for each in operations_in(op)]
    kinds = [str(each.type) for each in (*op.operands, *op.results)]
    attributes = sorted(f"{name}={op.attributes[name]}" for name in op.attributes)
    return f"{op.name} {attributes} {inner} {kinds}"


def _term(value: ir.Value) -> _Term | None:
    """The term that a value is, if it is one that can be joined."""
    moves: list[ir.Operation] = []
    while (op := owner(value)) is not None and op.name in _MOVES:
        moves.append(op)
        value = op.operands[0]
    if op is None or not (_is_plain(op) or _is_total(op)):
        return None
    return _Term(op, tuple(reversed(moves)))


def _is_total(op: ir.Operation) -> bool:
    """Whether it adds up one tensor along some axes, from zero."""
    if op.name != _SUM or len(op.results) != 1 or not list(ir.DenseI64ArrayAttr(op.attributes["dimensions"])):
        return False
    inner = [each.name for each in operations_in(op)]
    start = splat_of(op.operands[1])
    is_zero = isinstance(start, ir.FloatAttr) and ir.FloatAttr(start).value == 0
    return inner == ["stablehlo.add", "stablehlo.return"] and is_zero


def _join_sums(operations: Sequence[ir.Operation], rows: _Rows, alike: int) -> bool:
    """Join the terms of sums."""
    joined: dict[tuple[ir.Operation, ...], ir.Value] = {}
    changed = False
    for op in operations:
        if op.name != "stablehlo.add" or _only_sum(op) is not None or not _is_wide(op.results[0]):
            continue
        terms, others = _terms(op)
        groups: dict[tuple[str, ...], list[_Term]] = {}
        for term in terms:
            groups.setdefault(term.kind, []).append(term)
        if not any(len(each) >= alike for each in groups.values()):
            continue
        with ir.InsertionPoint(op):
            parts = list(others)
            for group in groups.values():
                if len(group) >= alike:
                    parts.append(_moved(_together(group, rows, joined), group[0].moves))
                else:
                    parts += [(each.moves or (each.leaf,))[-1].results[0] for each in group]
            total = parts[0]
            for part in parts[1:]:
                total = build.elementwise("add", total, part)
        op.results[0].replace_all_uses_with(total)
        changed = True
    return changed


def _is_wide(value: ir.Value) -> bool:
    """Whether it has 32 bits or more: sums in fewer are rounded term by term."""
    return width_of(element_type(value)) >= 32


def _only_sum(op: ir.Operation) -> ir.Operation | None:
    """The sum that alone reads this one."""
    readers = [use.owner.operation for use in op.results[0].uses]
    return readers[0] if len(readers) == 1 and readers[0].name == "stablehlo.add" else None


def _terms(op: ir.Operation) -> tuple[list[_Term], list[ir.Value]]:
    """The terms of a sum of sums, in their order, and what else is added."""
    terms: list[_Term] = []
    others: list[ir.Value] = []
    waiting = list(reversed(list(op.operands)))
    while waiting:
        value = waiting.pop()
        maker = owner(value)
        if maker is not None and maker.name == "stablehlo.add" and _only_sum(maker) is not None:
            waiting += reversed(list(maker.operands))
        elif (term := _term(value)) is not None:
            terms.append(term)
        else:
            others.append(value)
    return terms, others


def _together(group: Sequence[_Term], rows: _Rows, joined: dict[tuple[ir.Operation, ...], ir.Value]) -> ir.Value:
    """The sum of the leaves as one product, or as one sum along axes; made once for all sums of their parts."""
    leaves = [term.leaf for term in group]
    places = {leaf: place for leaf in leaves if (place := _row(leaf, rows)) is not None}
    if len(places) == len(leaves):
        leaves.sort(key=places.__getitem__)
    key = tuple(leaves)
    if key not in joined:
        first = leaves[0]
        if first.name == _PRODUCT:
            numbers = dot_numbers(first)
            axes = [*numbers.lhs_contracting_dimensions, *numbers.rhs_contracting_dimensions]
        else:
            axes = [next(iter(ir.DenseI64ArrayAttr(first.attributes["dimensions"])))]
        given = [_side_by_side([leaf.operands[side] for leaf in leaves], axis, rows) for side, axis in enumerate(axes)]
        new = first.clone()
        for side, value in enumerate(given):
            new.operands[side] = value
        joined[key] = new.results[0]
    return joined[key]


def _row(leaf: ir.Operation, rows: _Rows) -> int | None:
    """The number of the row that an operand is."""
    found = [each for operand in leaf.operands if (each := rows.of(operand)) is not None]
    return found[0][1] if found else None


def _side_by_side(values: Sequence[ir.Value], axis: int, rows: _Rows) -> ir.Value:
    """The tensors one after the other along an axis."""
    whole = rows.whole(values) if axis == 0 else None
    if whole is None:
        return build.concatenate(values, axis)
    count, first, *others = shape_of(whole)
    return build.reshape(whole, [count * first, *others])


def _moved(value: ir.Value, moves: Sequence[ir.Operation]) -> ir.Value:
    """The value after copies of these operations."""
    for move in moves:
        copy = move.clone()
        copy.operands[0] = value
        value = copy.results[0]
    return value


PASS = Pass(
    name="join-products",
    summary="join the products that iterations of an unrolled loop make or sum alike",
    description=__doc__,
    run=join_products,
    options=(Option(name="alike", default=8, help="the products from which on they are joined", read=int),),
)
