"""A traced scalar in place of a Python number, for a setting that the compiled step reads at run time."""

from __future__ import annotations

from typing import Any

import jax


class RuntimeNumber:
    """Computes as a traced scalar and compares as a number, so that the checks of an optimizer's options pass.

    It has no `__float__`: an optimizer that would fix the value while it is traced fails and does not use a wrong one.

    Attributes:
      traced: JAX's scalar.
    """

    def __init__(self, example: float, traced: Any) -> None:
        """`example` answers comparisons; `traced` takes part in arithmetic."""
        self._example = example
        self.traced = traced

    def __jax_array__(self) -> Any:
        return self.traced

    def __repr__(self) -> str:
        return f"RuntimeNumber({self._example})"

    def __lt__(self, other: float) -> bool:
        return self._example < other

    def __le__(self, other: float) -> bool:
        return self._example <= other

    def __gt__(self, other: float) -> bool:
        return self._example > other

    def __ge__(self, other: float) -> bool:
        return self._example >= other

    def __eq__(self, other: object) -> bool:
        return self._example == other

    __hash__ = None  # type: ignore[assignment]

    def __neg__(self) -> Any:
        return -self.traced

    def __add__(self, other: Any) -> Any:
        return self.traced + other

    def __radd__(self, other: Any) -> Any:
        return other + self.traced

    def __sub__(self, other: Any) -> Any:
        return self.traced - other

    def __rsub__(self, other: Any) -> Any:
        return other - self.traced

    def __mul__(self, other: Any) -> Any:
        return self.traced * other

    def __rmul__(self, other: Any) -> Any:
        return other * self.traced

    def __truediv__(self, other: Any) -> Any:
        return self.traced / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.traced

    def __pow__(self, other: Any) -> Any:
        return self.traced**other

    def __rpow__(self, other: Any) -> Any:
        return other**self.traced


# As a tree it can be an argument of functions under `jax.jit`, such as parts of optax.
jax.tree_util.register_pytree_node(
    RuntimeNumber,
    lambda number: ((number.traced,), number._example),
    lambda example, children: RuntimeNumber(example, children[0]),
)
