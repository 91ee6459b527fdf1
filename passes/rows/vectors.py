"""Elementwise StableHLO as arithmetic on vectors, and the other vector operations of a kernel's loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.elementwise import ARITHMETIC, FUNCTIONS, conversion_of
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, is_float, is_half, width_of
from sonew_compiled.passes.rows.loops import index, select
from sonew_compiled.passes.rows.magnitude import is_magnitude
from sonew_compiled.passes.rows.memory import lane_type, memory_type

# MLIR's numbers for predicates. Floating-point comparisons are ordered, except NE, which is true for NaN.
_FLOAT_PREDICATES = {"EQ": 1, "GT": 2, "GE": 3, "LT": 4, "LE": 5, "NE": 13}
_INTEGER_PREDICATES = {"EQ": 0, "NE": 1, "LT": 2, "LE": 3, "GT": 4, "GE": 5}
# An unsigned comparison has the number of the signed one plus this.
_UNSIGNED = 4

# The locality by which MLIR's prefetches mean the second-level cache. Into the first level a core fetches far fewer
# lines at once.
_SECOND_LEVEL = 2


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The operations by which a reduction combines numbers.

    Attributes:
      operation: combines two numbers, or two vectors lane by lane.
      kind: the kind of `vector.reduction` that combines the lanes of a vector.
      identity: combined with any number, it gives that number.
    """

    operation: str
    kind: str
    identity: float


COMBINATIONS: Mapping[str, Combination] = {
    "add": Combination(operation="arith.addf", kind="add", identity=0.0),
    "maximum": Combination(operation="arith.maximumf", kind="maximumf", identity=-math.inf),
    "minimum": Combination(operation="arith.minimumf", kind="minimumf", identity=math.inf),
}
"""The reductions that kernels support, by StableHLO's name of the operation in their body."""


@dataclass(frozen=True)
class Vectors:
    """Makes operations on vectors at the insertion point.

    Attributes:
      lanes: the number of elements of a vector.
      native_bf16: whether the processor rounds to bfloat16 in one instruction, which makes subnormal numbers zero.
    """

    lanes: int
    native_bf16: bool = False

    def type(self, element: ir.Type) -> ir.Type:
        """The type of a vector of such elements in a register."""
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
        number = create("memref.load", [memory, index(0)], [memory_type(element)]).result
        every = self.broadcast(number)
        return self._cast("arith.trunci", every, element) if width_of(element) == 1 else every

    def mask(self, count: ir.Value) -> ir.Value:
        """A mask of the first `count` lanes, at most all."""
        kind = ir.VectorType.get([self.lanes], ir.IntegerType.get_signless(1))
        return create("vector.create_mask", [count], [kind]).result

    def load(self, memory: ir.Value, at: ir.Value, element: ir.Type, mask: ir.Value | None = None) -> ir.Value:
        """The elements from `at` on; zeros outside the mask."""
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
        """Write the elements from `at` on, within the mask."""
        if width_of(element) == 1:
            value = self._cast("arith.extui", value, ir.IntegerType.get_signless(8))
        if mask is None:
            create("vector.store", [value, memory, at])
        else:
            create("vector.maskedstore", [memory, at, mask, value])

    def prefetch(self, memory: ir.Value, at: ir.Value) -> None:
        """Bring the line of memory at `at` to the caches; beyond the end of memory this does nothing."""
        attributes = {
            "isWrite": ir.BoolAttr.get(False),
            "localityHint": ir.IntegerAttr.get(ir.IntegerType.get_signless(32), _SECOND_LEVEL),
            "isDataCache": ir.BoolAttr.get(True),
        }
        create("memref.prefetch", [memory, at], attributes=attributes)

    def binary(self, name: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """An operation on two vectors of one type; the result has that type too."""
        return create(name, [left, right], [left.type]).result

    def reduced(self, kind: str, value: ir.Value) -> ir.Value:
        """The combination of all lanes by a `kind` of MLIR's `vector` dialect, such as `add`."""
        into = ir.VectorType(value.type).element_type
        return create("vector.reduction", [value], [into], {"kind": ir.Attribute.parse(f"#vector.kind<{kind}>")}).result

    def combine(self, kind: str, total: ir.Value, value: ir.Value, tensor: ir.Value) -> ir.Value:
        """A total combined with more numbers of a float32 tensor, by a kind of `COMBINATIONS`."""
        if kind == "maximum" and is_magnitude(tensor):
            return self._larger(total, value)
        return self.binary(COMBINATIONS[kind].operation, total, value)

    def _larger(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """The larger of two float32 magnitudes, or of one and the start of a total.

        Their bits as integers have the same order, with NaN last. That takes one instruction, and `arith.maximumf`
        four.
        """
        bits = [self._cast("arith.bitcast", each, ir.IntegerType.get_signless(32)) for each in (left, right)]
        return self._cast("arith.bitcast", self.binary("arith.maxsi", *bits), ir.F32Type.get())

    def equal(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """The mask of the lanes whose integers are equal."""
        return self._compared("arith.cmpi", 0, left, right)

    def elementwise(self, op: ir.Operation, operands: Sequence[ir.Value]) -> ir.Value:
        """The operation's result on vectors instead of its tensors."""
        name = op.name.removeprefix("stablehlo.")
        source, into = element_type(op.operands[0]), element_type(op.results[0])
        if is_half(source) and name not in ("convert", "bitcast_convert"):
            # In float32, as IREE does it. `emulate-arithmetic` has already made explicit what rounds to 16 bits.
            wide = ir.F32Type.get()
            operands = [self._convert(each, source, wide) for each in operands]
            result = self._named(op, name, operands, wide, wide if is_half(into) else into)
            return self._convert(result, wide, into) if is_half(into) else result
        return self._named(op, name, operands, source, into)

    def _named(
        self, op: ir.Operation, name: str, operands: Sequence[ir.Value], source: ir.Type, into: ir.Type
    ) -> ir.Value:
        special: dict[str, Callable[..., ir.Value]] = {
            "select": select,
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
        if name == "maximum" and isinstance(source, ir.F32Type) and all(map(is_magnitude, op.operands)):
            return self._larger(*operands)
        if name in FUNCTIONS:
            return create(FUNCTIONS[name], operands, [operands[0].type]).result
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


def _zero(kind: ir.Type) -> ir.Attribute:
    return ir.FloatAttr.get(kind, 0.0) if is_float(kind) else ir.IntegerAttr.get(kind, 0)


def _bits(value: float, element: ir.Type) -> int:
    """The bits of a 16-bit number as a signed integer."""
    dtype = ml_dtypes.bfloat16 if str(element) == "bf16" else np.float16
    return int(np.asarray(value, dtype).view(np.int16))
