"""The record of a pass: a rewrite of a module, with its texts for the command line and the documents."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from sonew_compiled.contract import STORED_ROLES
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.mlir import ir

T_co = TypeVar("T_co", covariant=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option(Generic[T_co]):
    """A setting of a pass.

    Attributes:
        name: the keyword argument of the pass's function.
        default: the value where none is given.
        help: a phrase without a full stop that says what it sets.
        read: makes the value from text; its `ValueError` says what is accepted.
    """

    name: str
    default: T_co
    help: str
    read: Callable[[str], T_co]

    @property
    def default_text(self) -> str:
        """The default as the command line takes it."""
        if isinstance(self.default, tuple):
            return "+".join(self.default)
        return str(int(self.default) if isinstance(self.default, bool) else self.default)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """A rewrite of a module in place.

    Attributes:
        name: its name on the command line and in dumps: the name of its file, in kebab case.
        summary: a phrase that says what it does, for the tables and `--list`.
        description: the docstring of its file, which says in detail what it does and why.
        run: rewrites the module in place. It takes a keyword argument for each option, and is called inside the
            module's context, where the current location is unknown.
        options: the settings that it has.
        values: the values of the options that `bind` has set.
    """

    name: str
    summary: str
    description: str
    run: Callable[..., None]
    options: Sequence[Option[object]] = ()
    values: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def bind(self, **values: object) -> Pass:
        """Return the pass with these options set.

        Raises:
            UsageError: the pass has no such option.
        """
        names = [each.name for each in self.options]
        for name in values:
            if name not in names:
                accepted = ", ".join(names) or "none"
                raise UsageError(f"pass {self.name} has no option {name!r}; it has: {accepted}")
        return dataclasses.replace(self, values={**self.values, **values})

    def __call__(self, module: ir.Module) -> None:
        """Run the pass on the module without verifying it; `run_pipeline` verifies."""
        with module.context, ir.Location.unknown():
            self.run(module, **{each.name: self.values.get(each.name, each.default) for each in self.options})


def read_flag(text: str) -> bool:
    """A flag from text: 0 or 1."""
    if text not in ("0", "1"):
        raise ValueError("give 0 or 1")
    return text == "1"


def read_half(text: str) -> str:
    """A 16-bit floating-point type from text."""
    if text not in ("bf16", "f16"):
        raise ValueError("give bf16 or f16")
    return text


def read_roles(text: str) -> tuple[str, ...]:
    """Roles from text such as `parameter+optimizer`."""
    roles = tuple(text.split("+"))
    if set(roles) - set(STORED_ROLES):
        raise ValueError(f"give {'+'.join(STORED_ROLES)} or one of them")
    return roles


def _read_native(text: str) -> str:
    if text not in ("none", "bf16", "f16"):
        raise ValueError("give none, bf16 or f16")
    return text


NATIVE = Option(
    name="native",
    default="none",
    help="the operand type for which the processor has units, bf16 or f16, or none",
    read=_read_native,
)
"""The 16-bit type whose products the processor has units for, which some passes leave to it."""
