"""The signatures of a module's exports: the names, shapes and dtypes of their arguments and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sonew_compiled.contract import NAME_ATTRIBUTE, ROLE_ATTRIBUTE
from sonew_compiled.passes.ir.attributes import ALIASED, GIVEN_UP, Attributes, text_attribute
from sonew_compiled.passes.ir.function import functions
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.types import element_type, shape_of

_DTYPES = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i1": "bool"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """An argument or result: its `sonew.name`, shape in elements, NumPy or ml_dtypes dtype, and `sonew.role`.

    `role` is empty where the module gives none; an artifact gives it for the state alone. `donated` is true of an
    argument whose buffer a result takes, as `wire-donation` decided.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str = ""
    donated: bool = False


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The arguments and results of a public function, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def signatures(module: ir.Module) -> dict[str, Signature]:
    """The signature of each public function of a flat module; all arguments and results have a `sonew.name`."""
    return {
        function.name: Signature(
            inputs=_values(function.arguments, function.argument_attributes),
            outputs=_values(function.returned, function.result_attributes),
        )
        for function in functions(module)
        if function.is_public
    }


def _values(values: Sequence[ir.Value], attributes: Sequence[Attributes]) -> tuple[Value, ...]:
    return tuple(
        Value(
            name=ir.StringAttr(each[NAME_ATTRIBUTE]).value,
            shape=tuple(shape_of(value)),
            dtype=dtype_of(element_type(value)),
            role=text_attribute(each, ROLE_ATTRIBUTE),
            donated=any(attribute in each for attribute in (ALIASED, GIVEN_UP)),
        )
        for value, each in zip(values, attributes, strict=True)
    )


def type_of(dtype: str) -> ir.Type:
    """The element type of a NumPy or ml_dtypes dtype, by its name, in the current context."""
    short = next((short for short, name in _DTYPES.items() if name == dtype), "")
    return ir.Type.parse(short or dtype.replace("uint", "ui").replace("int", "i"))


def dtype_of(element: ir.Type) -> str:
    """The NumPy or ml_dtypes dtype of an element type, by its name."""
    text = str(element)
    if text in _DTYPES:
        return _DTYPES[text]
    # Such as i32 or ui8. StableHLO's signless integers are JAX's signed ones.
    assert text.lstrip("ui").isdigit(), f"no dtype for the element type {text}"
    return ("uint" if text.startswith("u") else "int") + text.lstrip("ui")
