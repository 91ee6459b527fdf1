"""Elementwise StableHLO as arithmetic on vectors, and the other operations that a kernel's loops are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from sonew_compiled.passes.ir.constants import splat_of
from sonew_compiled.passes.ir.elementwise import ARITHMETIC, conversion_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_float, is_half, shape_of, width_of
from sonew_compiled.passes.ir.uses import owner

# MLIR's numbers of predicates: ordered comparisons of floating point, but for NE, which holds of a NaN.
_FLOAT_PREDICATES = {"EQ": 1, "GT": 2, "GE": 3, "LT": 4, "LE": 5, "NE": 13}
_INTEGER_PREDICATES = {"EQ": 0, "NE": 1, "LT": 2, "LE": 3, "GT": 4, "GE": 5}
_UNSIGNED = 4  # further on, for orders

# Of MLIR's prefetches: to the second level of caches. A processor waits for far fewer lines at once that are to come to
# the first.
_SECOND_LEVEL = 2
LINE = 64
"""Bytes of a line of memory; what IREE aligns a dispatch's memory to."""

# What two numbers are reduced to one by, how the lanes of a vector are, and what changes nothing.
COMBINE: Mapping[str, tuple[str, str, float]] = {
    "add": ("arith.addf", "add", 0.0),
    "maximum": ("arith.maximumf", "maximumf", -math.inf),
    "minimum": ("arith.minimumf", "minimumf", math.inf),
}


def lane_type(element: ir.Type) -> ir.Type:
    """What stands for an element in a register: numbers of 16 bits are their bits, integers have no sign."""
    if isinstance(element, ir.F32Type | ir.F64Type):
        return element
    return ir.IntegerType.get_signless(width_of(element))


def memory_type(element: ir.Type) -> ir.Type:
    """What stands for it in memory: booleans are bytes."""
    return ir.IntegerType.get_signless(8) if width_of(element) == 1 else lane_type(element)


def size_of(element: ir.Type) -> int:
    """The bytes of an element in memory."""
    return max(width_of(element), 8) // 8


def bytes_of(value: ir.Value) -> int:
    """The bytes that a vector or a buffer takes in memory."""
    return math.prod(shape_of(value)) * size_of(element_type(value))


def bypass(store: ir.Operation) -> None:
    """Has a store of whole vectors to aligned memory leave the caches out; others stay as they are."""
    if store.name != "vector.store":
        return
    alignment = min(bytes_of(store.operands[0]), LINE)
    i64 = ir.IntegerType.get_signless(64)
    store.attributes["nontemporal"] = ir.BoolAttr.get(True)
    # Without it, code for x86 would store numbers one by one.
    store.attributes["alignment"] = ir.IntegerAttr.get(i64, alignment)


def create(
    name: str,
    operands: Sequence[ir.Value] = (),
    results: Sequence[ir.Type] = (),
    attributes: Mapping[str, ir.Attribute] | None = None,
    regions: int = 0,
) -> ir.Operation:
    """An operation at the insertion point."""
    return ir.Operation.create(
        name, results=list(results), operands=list(operands), attributes=dict(attributes or {}), regions=regions
    )


def attribute(text: str) -> ir.Attribute:
    """An attribute from its text."""
    return ir.Attribute.parse(text)


@dataclass(frozen=True)
class Vectors:
    """Makes operations on vectors at the insertion point.

    Attributes:
      lanes: their elements.
      native_bf16: whether the processor rounds to bfloat16 in one instruction; then numbers smaller than the least
        normal one become zero.
    """

    lanes: int
    native_bf16: bool = False

    def type(self, element: ir.Type) -> ir.Type:
        """The vector of what stands for the element in a register."""
        return ir.VectorType.get([self.lanes], lane_type(element))

    def constant(self, value: ir.Attribute | float, element: ir.Type) -> ir.Value:
        """A vector of one number, which may be an attribute of the element's own type."""
        kind = lane_type(element)
        if not isinstance(value, ir.Attribute):
            one = ir.FloatAttr.get(kind, value) if is_float(kind) else ir.IntegerAttr.get(kind, int(value))
        elif is_half(element):
            one = ir.IntegerAttr.get(kind, _bits(ir.FloatAttr(value).value, element))
        elif is_float(kind):
            one = value
        else:
            number = int(ir.BoolAttr(value).value) if width_of(kind) == 1 else ir.IntegerAttr(value).value
            one = ir.IntegerAttr.get(kind, number)
        splat = ir.DenseElementsAttr.get_splat(self.type(element), one)
        return create("arith.constant", results=[splat.type], attributes={"value": splat}).result

    def broadcast(self, value: ir.Value) -> ir.Value:
        """A vector of one number in a register."""
        return create("vector.broadcast", [value], [ir.VectorType.get([self.lanes], value.type)]).result

    def scalar(self, memory: ir.Value, element: ir.Type) -> ir.Value:
        """A vector of the number in memory."""
        zero = ir.IntegerAttr.get(ir.IndexType.get(), 0)
        first = create("arith.constant", results=[zero.type], attributes={"value": zero}).result
        number = create("memref.load", [memory, first], [memory_type(element)]).result
        every = self.broadcast(number)
        return self._cast("arith.trunci", every, element) if width_of(element) == 1 else every

    def mask(self, count: ir.Value) -> ir.Value:
        """The first so many lanes; at most all."""
        kind = ir.VectorType.get([self.lanes], ir.IntegerType.get_signless(1))
        return create("vector.create_mask", [count], [kind]).result

    def load(self, memory: ir.Value, at: ir.Value, element: ir.Type, mask: ir.Value | None = None) -> ir.Value:
        """The elements from `at` on; zeros where the mask is not."""
        kind = ir.VectorType.get([self.lanes], memory_type(element))
        if mask is None:
            loaded = create("vector.load", [memory, at], [kind]).result
        else:
            zeros = ir.DenseElementsAttr.get_splat(kind, _zero(kind.element_type))
            none = create("arith.constant", results=[kind], attributes={"value": zeros}).result
            loaded = create("vector.maskedload", [memory, at, mask, none], [kind]).result
        return self._cast("arith.trunci", loaded, element) if width_of(element) == 1 else loaded

    def store(
        self, value: ir.Value, memory: ir.Value, at: ir.Value, element: ir.Type, mask: ir.Value | None = None
    ) -> None:
        """Writes the elements from `at` on, where the mask is."""
        if width_of(element) == 1:
            value = self._cast("arith.extui", value, ir.IntegerType.get_signless(8))
        if mask is None:
            create("vector.store", [value, memory, at])
        else:
            create("vector.maskedstore", [memory, at, mask, value])

    def prefetch(self, memory: ir.Value, at: ir.Value) -> None:
        """Has the line of memory at `at` brought to the caches, which beyond the end of memory does nothing."""
        attributes = {
            "isWrite": ir.BoolAttr.get(False),
            "localityHint": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), _SECOND_LEVEL),
            "isDataCache": ir.BoolAttr.get(True),
        }
        create("memref.prefetch", [memory, at], attributes=attributes)

    def binary(self, name: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """An operation of two vectors of one type, which the result has too."""
        return create(name, [left, right], [left.type]).result

    def select(self, condition: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
        """`yes` where the condition holds, else `no`."""
        return create("arith.select", [condition, yes, no], [yes.type]).result

    def reduced(self, kind: str, value: ir.Value) -> ir.Value:
        """The number that the lanes are combined to by `kind` of MLIR's `vector` dialect, such as `add`."""
        into = ir.VectorType(value.type).element_type
        return create("vector.reduction", [value], [into], {"kind": attribute(f"#vector.kind<{kind}>")}).result

    def combine(self, kind: str, total: ir.Value, value: ir.Value, tensor: ir.Value) -> ir.Value:
        """A total with more of a float32 tensor in it, by a kind of `COMBINE`."""
        if kind == "maximum" and _is_magnitude(tensor):
            return self._larger(total, value)
        return self.binary(COMBINE[kind][0], total, value)

    def _larger(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """The larger of float32 numbers without a sign, or of one and what a total starts from.

        Their bits are in the same order, NaN last: one instruction, where `arith.maximumf` takes four.
        """
        bits = [self._cast("arith.bitcast", each, ir.IntegerType.get_signless(32)) for each in (left, right)]
        return self._cast("arith.bitcast", self.binary("arith.maxsi", *bits), ir.F32Type.get())

    def equal(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Where integers are equal."""
        return self._compared("arith.cmpi", 0, left, right)

    def elementwise(self, op: ir.Operation, operands: Sequence[ir.Value]) -> ir.Value:
        """What the operation makes of vectors in the place of its tensors."""
        name = op.name.removeprefix("stablehlo.")
        source, into = element_type(op.operands[0]), element_type(op.results[0])
        if is_half(source) and name not in ("convert", "bitcast_convert"):
            # In float32, as IREE does it; what rounds is not left to a kernel but by `emulate-arithmetic`.
            wide = ir.F32Type.get()
            operands = [self._convert(each, source, wide) for each in operands]
            result = self._named(op, name, operands, wide, wide if is_half(into) else into)
            return self._convert(result, wide, into) if is_half(into) else result
        return self._named(op, name, operands, source, into)

    def _named(
        self, op: ir.Operation, name: str, operands: Sequence[ir.Value], source: ir.Type, into: ir.Type
    ) -> ir.Value:
        special: dict[str, Callable[..., ir.Value]] = {
            "select": self.select,
            "clamp": lambda low, x, high: self.binary("arith.minimumf", self.binary("arith.maximumf", x, low), high),
            "not": lambda x: self.binary("arith.xori", x, self.constant(-1, source)),
            "compare": lambda left, right: self._compare(op, source, left, right),
            "is_finite": lambda x: self._compared(
                "arith.cmpf", 4, create("math.absf", [x], [x.type]).result, self.constant(math.inf, source)
            ),
            "convert": lambda x: self._convert(x, source, into),
            "bitcast_convert": lambda x: self._cast("arith.bitcast", x, into),
        }
        if name in special:
            return special[name](*operands)
        if name == "maximum" and isinstance(source, ir.F32Type) and all(map(_is_magnitude, op.operands)):
            return self._larger(*operands)
        floating, integer = ARITHMETIC[name]
        return create(floating if is_float(lane_type(source)) else integer, operands, [operands[0].type]).result

    def _compare(self, op: ir.Operation, kind: ir.Type, left: ir.Value, right: ir.Value) -> ir.Value:
        direction = str(op.attributes["comparison_direction"]).split()[-1].rstrip(">")
        if is_float(lane_type(kind)):
            return self._compared("arith.cmpf", _FLOAT_PREDICATES[direction], left, right)
        signless = isinstance(kind, ir.IntegerType) and not kind.is_unsigned and kind.width > 1
        ordered = direction not in ("EQ", "NE")
        number = _INTEGER_PREDICATES[direction] + (0 if signless or not ordered else _UNSIGNED)
        return self._compared("arith.cmpi", number, left, right)

    def _compared(self, name: str, predicate: int, left: ir.Value, right: ir.Value) -> ir.Value:
        number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), predicate)
        kind = ir.VectorType.get([self.lanes], ir.IntegerType.get_signless(1))
        return create(name, [left, right], [kind], {"predicate": number}).result

    def _convert(self, value: ir.Value, source: ir.Type, into: ir.Type) -> ir.Value:
        if source == into or (lane_type(source) == lane_type(into) and not is_half(source)):
            return value
        if str(source) == "bf16":  # the upper half of a float32
            i32 = ir.IntegerType.get_signless(32)
            wide = self._cast("arith.extui", value, i32)
            return self._cast("arith.bitcast", self.binary("arith.shli", wide, self.constant(16, i32)), into)
        if is_half(source):
            value = create("arith.bitcast", [value], [ir.VectorType.get([self.lanes], source)]).result
        conversion = conversion_of(source, into)
        assert conversion is not None, (source, into)
        if not is_half(into):
            return self._cast(conversion, value, into)
        if self.native_bf16 and str(into) == "bf16":  # IREE makes integer arithmetic of `arith.truncf`
            conversion = "llvm.fptrunc"
        narrow = create(conversion, [value], [ir.VectorType.get([self.lanes], into)]).result
        return self._cast("arith.bitcast", narrow, into)

    def _cast(self, name: str, value: ir.Value, into: ir.Type) -> ir.Value:
        kind = self.type(into)
        return value if value.type == kind else create(name, [value], [kind]).result


def _is_magnitude(value: ir.Value) -> bool:
    """Whether no number of the tensor has a sign: it consists of absolute values, or sums of them."""
    # Each once: of sums of sums there may be far more ways to a value than values.
    seen, waiting = {value}, [value]
    while waiting:
        value = waiting.pop()
        op = owner(value)
        if op is None:
            return False
        if op.name == "stablehlo.abs":
            continue
        if op.name.removeprefix("stablehlo.") in ("add", "broadcast_in_dim", "concatenate", "maximum", "slice"):
            waiting += set(op.operands) - seen
            seen.update(op.operands)
            continue
        constant = splat_of(value)
        if constant is None or math.copysign(1, ir.FloatAttr(constant).value) < 0:
            return False
    return True


def _zero(kind: ir.Type) -> ir.Attribute:
    return ir.FloatAttr.get(kind, 0.0) if is_float(kind) else ir.IntegerAttr.get(kind, 0)


def _bits(value: float, element: ir.Type) -> int:
    """The bits of a number of 16 bits, as a signed integer."""
    dtype = ml_dtypes.bfloat16 if str(element) == "bf16" else np.float16
    return int(np.asarray(value, dtype).view(np.int16))
