"""A JAX primitive and the function that it is lowered as."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir


class Rule(NamedTuple):
    """A primitive, and how it becomes StableHLO."""

    primitive: Primitive
    lowering: Callable[..., Any]


def rule(primitive: Primitive, function: Callable[..., Any], *, name: str = "") -> Rule:
    """The rule that lowers a primitive as a JAX function.

    Args:
      primitive: what is replaced.
      function: takes the primitive's operands and, by keyword, its parameters; gives an array or, of a primitive with
        several results, a tuple of arrays, in the shapes and dtypes of the primitive's.
      name: of the function in the module, where it shall be one of its own; else its operations stand where the
        primitive stood. One that begins with `in_float32_` keeps its type under every precision policy.
    """
    multiple = primitive.multiple_results
    if not name:
        return Rule(primitive, mlir.lower_fun(function, multiple_results=multiple))

    def apart(*operands: Any, **parameters: Any) -> Any:
        @functools.wraps(function)
        def called(*operands: Any) -> Any:
            return function(*operands, **parameters)

        called.__name__ = name
        return jax.jit(called)(*operands)

    return Rule(primitive, mlir.lower_fun(apart, multiple_results=multiple))


def in_float32(primitive: Primitive, function: Callable[..., Any]) -> Rule:
    """The rule of a function that computes in float32 also where its operands are of 16 bits, whatever the policy."""

    @functools.wraps(function)
    def widened(*operands: jax.Array, **parameters: Any) -> Any:
        narrow = [x.dtype for x in operands if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4]
        if not narrow:
            return function(*operands, **parameters)
        results = function(*(x.astype(jnp.float32) if x.dtype in narrow else x for x in operands), **parameters)
        return jax.tree.map(lambda x: x.astype(narrow[0]) if x.dtype == jnp.float32 else x, results)

    return rule(primitive, widened, name=f"in_float32_{function.__name__}")
