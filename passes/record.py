"""What a pass is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.attributes import ROLES
from sonew_compiled.passes.ir.mlir import ir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """A rewrite of a module in place.

    Attributes:
        name: what the command line and the dumps call it, in kebab case.
        summary: one line for `--list`.
        run: rewrites the module in place; called inside the module's context with an unknown location current.
        options: the keyword arguments of `run` that may be set, each with the function that reads it from text.
    """

    name: str
    summary: str
    run: Callable[..., None]
    options: Mapping[str, Callable[[str], object]] = dataclasses.field(default_factory=dict)

    def bind(self, **options: object) -> Pass:
        """Return the pass with these options set.

        Raises:
            UsageError: the pass has no such option.
        """
        for option in options:
            if option not in self.options:
                accepted = ", ".join(self.options) or "none"
                raise UsageError(f"pass {self.name} has no option {option!r}; it has: {accepted}")
        return dataclasses.replace(self, run=functools.partial(self.run, **options))

    def __call__(self, module: ir.Module) -> None:
        """Run the pass on the module, without verification: `run_pipeline` is what verifies."""
        with module.context, ir.Location.unknown():
            self.run(module)


def read_roles(text: str) -> tuple[str, ...]:
    """Roles from text such as `parameter+optimizer`."""
    roles = tuple(text.split("+"))
    if set(roles) - set(ROLES):
        raise ValueError(f"give {'+'.join(ROLES)} or one of them")
    return roles


def read_half(text: str) -> str:
    """A 16-bit floating-point type from text."""
    if text not in ("bf16", "f16"):
        raise ValueError("give bf16 or f16")
    return text
