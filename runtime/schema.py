"""Checks of the values of a foreign JSON file, with limits on counts, lengths and sizes.

A check takes a value and its place in the file, and returns the value or raises `Unfit`. `schema_of` gives the JSON
Schema of a check, as far as JSON Schema can say what the check does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from sonew_compiled.runtime.shown import shown

Check: TypeAlias = Callable[[object, str], Any]

# The largest integer that every JSON reader represents exactly.
_EXACT = 2**53


@dataclass(frozen=True)
class Described:
    """A check with the JSON Schema that describes it."""

    check: Check
    schema: Mapping[str, Any]

    def __call__(self, value: object, place: str) -> Any:
        """The checked value."""
        return self.check(value, place)


def schema_of(check: Check) -> dict[str, Any]:
    """The JSON Schema of a check; of one that says nothing of itself, the schema of anything."""
    return dict(check.schema) if isinstance(check, Described) else {}


class Unfit(ValueError):  # noqa: N818 - the reason why a file is refused, not yet the error
    """The fault of a value, in words on one line."""


def integer(least: int = 0, most: int = _EXACT) -> Check:
    """A whole number."""

    def check(value: object, place: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Unfit(f"{place} is {shown(value)}, not a whole number from {least} to {most}")
        return value

    return Described(check, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float = -1e39, most: float = 1e39) -> Check:
    """A finite number; by default within the range of float32."""

    def check(value: object, place: str) -> float:
        if type(value) not in (int, float) or not least <= value <= most or not math.isfinite(value):  # type: ignore[operator, arg-type]
            raise Unfit(f"{place} is {shown(value)}, not a number from {least:g} to {most:g}")
        return value  # type: ignore[return-value]

    return Described(check, {"type": "number", "minimum": least, "maximum": most})


def text(longest: int = 200, *, printable: bool = True, empty: bool = True) -> Check:
    """Characters that can be written, on one line unless `printable` is false."""
    return _text(longest, lambda value: _is_text(value) and (not printable or value.isprintable()), empty=empty)


def path_text(longest: int = 4096) -> Check:
    """A path. Python has its bytes that are no UTF-8 as surrogates from U+DC80 to U+DCFF."""
    return _text(longest, lambda value: _is_text(_UNDECODED.sub("", value)))


_UNDECODED = re.compile("[\udc80-\udcff]")


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _text(longest: int, is_fit: Callable[[str], bool], *, empty: bool = True) -> Check:
    def check(value: object, place: str) -> str:
        if type(value) is not str:
            raise Unfit(f"{place} is {shown(value)}, not text")
        if len(value) > longest:
            raise Unfit(f"{place} has {len(value):,} characters, more than {longest:,}")
        if not value and not empty:
            raise Unfit(f"{place} is empty")
        if not is_fit(value):
            raise Unfit(f"{place} is {shown(value)}, which has characters that cannot be shown")
        return value

    return Described(check, {"type": "string", "minLength": 0 if empty else 1, "maxLength": longest})


def one_of(*kinds: type) -> Check:
    """A value of exactly one of these types of JSON; `text` and `number` check texts and numbers."""
    limits = {str: text(), int: number(), float: number()}

    def check(value: object, place: str) -> object:
        if type(value) not in kinds:
            raise Unfit(f"{place} is {shown(value)}, not {' or '.join(kind.__name__ for kind in kinds)}")
        return limits[type(value)](value, place) if type(value) in limits else value

    return Described(check, {"type": [_NAMES_OF_TYPES[kind] for kind in kinds]})


_NAMES_OF_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


SCALAR = one_of(str, int, float, bool, type(None))
"""A text, a number, true, false or null."""


def anything(value: object, place: str) -> object:
    """Any value, for fields that are not used."""
    return value


def nullable(check: Check) -> Check:
    """Null, or a value that another check accepts."""
    return Described(
        lambda value, place: None if value is None else check(value, place),
        {"anyOf": [schema_of(check), {"type": "null"}]},
    )


def listed(each: Check, most: int) -> Check:
    """A list of at most `most` values."""

    def check(value: object, place: str) -> list[Any]:
        if type(value) is not list:
            raise Unfit(f"{place} is {shown(value)}, not a list")
        if len(value) > most:
            raise Unfit(f"{place} has {len(value):,} entries, more than {most:,}")
        return [each(inner, f"{place}[{index}]") for index, inner in enumerate(value)]

    return Described(check, {"type": "array", "items": schema_of(each), "maxItems": most})


def mapped(each: Check, most: int, *, key: Check | None = None) -> Check:
    """An object of at most `most` entries, whose keys are names."""
    checked_key = text() if key is None else key

    def check(value: object, place: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise Unfit(f"{place} is {shown(value)}, not an object")
        if len(value) > most:
            raise Unfit(f"{place} has {len(value):,} entries, more than {most:,}")
        return {
            checked_key(name, f"a name in {place}"): each(inner, f"{shown(name)} of {place}")
            for name, inner in value.items()
        }

    return Described(
        check,
        {
            "type": "object",
            "propertyNames": schema_of(checked_key),
            "additionalProperties": schema_of(each),
            "maxProperties": most,
        },
    )


def record(
    required: Mapping[str, Check],
    optional: Mapping[str, Check] = MappingProxyType({}),
    others: Check | None = None,
    *,
    strict: bool = False,
    most: int = 100,
) -> Check:
    """An object with these fields; up to `most` others are checked by `others`, dropped, or refused if `strict`."""
    known = {**required, **optional}
    of_others = mapped(others or anything, most)

    def check(value: object, place: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise Unfit(f"{place} is {shown(value)}, not an object")
        missing = next((name for name in required if name not in value), None)
        if missing is not None:
            raise Unfit(f"{place} lacks {missing!r}")
        checked = {name: known[name](inner, f"{name!r} of {place}") for name, inner in value.items() if name in known}
        unknown = next((name for name in value if name not in known), None)
        if strict and unknown is not None:
            raise Unfit(f"{place} has {shown(unknown)}, which nobody reads")
        rest = of_others({name: inner for name, inner in value.items() if name not in known}, place)
        # The entries keep the order of the file.
        both = checked | rest if others else checked
        return {name: both[name] for name in value if name in both}

    schema = {
        "type": "object",
        "properties": {name: schema_of(each) for name, each in known.items()},
        "required": list(required),
        "additionalProperties": False if strict else schema_of(others or anything),
    }
    return Described(check, schema)
