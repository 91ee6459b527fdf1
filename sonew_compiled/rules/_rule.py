"""A lowering rule: a JAX primitive and the function as which it is lowered."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import mlir


class Rule(NamedTuple):
    """A primitive, and the function that lowers it to StableHLO."""

    primitive: Primitive
    lowering: Callable[..., Any]


def rule(primitive: Primitive, function: Callable[..., Any], *, name: str = "") -> Rule:
    """The rule that lowers a primitive as a JAX function.

    Args:
      primitive: the primitive whose lowering is replaced.
      function: takes the primitive's operands and, by keyword, its parameters. It returns an array with the shape and
        dtype of the primitive's result, or a tuple of such arrays for a primitive with several results.
      name: the name of a function of its own in the module; if empty, the operations replace the primitive in place. A
        function whose name begins with `in_float32_` keeps its type under every precision policy.
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
    """The rule of a function that computes in float32 under every policy, even if its operands are of 16 bits."""

    @functools.wraps(function)
    def widened(*operands: jax.Array, **parameters: Any) -> Any:
        narrow = [x.dtype for x in operands if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4]
        if not narrow:
            return function(*operands, **parameters)
        results = function(*(x.astype(jnp.float32) if x.dtype in narrow else x for x in operands), **parameters)
        return jax.tree.map(lambda x: x.astype(narrow[0]) if x.dtype == jnp.float32 else x, results)

    return rule(primitive, widened, name=f"in_float32_{function.__name__}")
