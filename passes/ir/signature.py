"""The signatures of a module's exports, as passes leave them: names, shapes and dtypes of arguments and results."""

from __future__ import annotations

from dataclasses import dataclass

from sonew_compiled.passes.ir.attributes import ALIASED, GIVEN_UP
from sonew_compiled.passes.ir.mlir import ir

_DTYPES = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i1": "bool"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """An argument or result: its `sonew.name`, shape in elements and NumPy or ml_dtypes dtype.

    `donated` says of an argument that `wire-donation` lets a result take its buffer.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    donated: bool = False


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The arguments and results of a public function, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def signatures(module: ir.Module) -> dict[str, Signature]:
    """The public functions of a flat module, every argument and result of which has a `sonew.name`."""
    found = {}
    for op in module.body.operations:
        if op.operation.name != "func.func" or _visibility(op) == "private":
            continue
        kind = ir.FunctionType(ir.TypeAttr(op.attributes["function_type"]).value)
        name = ir.StringAttr(op.attributes["sym_name"]).value
        found[name] = Signature(
            inputs=_values(op, "arg_attrs", kind.inputs), outputs=_values(op, "res_attrs", kind.results)
        )
    return found


def _visibility(op: ir.OpView) -> str:
    return str(ir.StringAttr(op.attributes["sym_visibility"]).value) if "sym_visibility" in op.attributes else "public"


def _values(op: ir.OpView, key: str, types: list[ir.Type]) -> tuple[Value, ...]:
    if not types:
        return ()
    values = []
    for attributes, kind in zip(ir.ArrayAttr(op.attributes[key]), types, strict=True):
        tensor = ir.RankedTensorType(kind)
        name = ir.StringAttr(ir.DictAttr(attributes)["sonew.name"]).value
        donated = any(each in ir.DictAttr(attributes) for each in (ALIASED, GIVEN_UP))
        shape, dtype = tuple(tensor.shape), _dtype(tensor.element_type)
        values.append(Value(name=name, shape=shape, dtype=dtype, donated=donated))
    return tuple(values)


def _dtype(element: ir.Type) -> str:
    text = str(element)
    if text in _DTYPES:
        return _DTYPES[text]
    # i32, ui8 and so on; StableHLO's signless integers are JAX's signed ones.
    assert text.lstrip("ui").isdigit(), f"no dtype for the element type {text}"
    return ("uint" if text.startswith("u") else "int") + text.lstrip("ui")
