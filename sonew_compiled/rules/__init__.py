"""Lowering rules for the JAX primitives whose own lowering only XLA can compile.

JAX lowers some of its primitives for processors to calls of LAPACK, or to forms that IREE gets wrong. `RULES` replaces
these lowerings in our trace only. Each rule is a JAX function of products, elementwise arithmetic and loops that
computes the same. JAX applies derivatives and `vmap` before lowering, so these stay JAX's own.
"""

from __future__ import annotations

from typing import Any

from jax.interpreters import mlir

from sonew_compiled.rules._approx_top_k import RULES as _APPROX_TOP_K
from sonew_compiled.rules._cholesky import RULES as _CHOLESKY
from sonew_compiled.rules._fourier import RULES as _FOURIER
from sonew_compiled.rules._householder import RULES as _HOUSEHOLDER
from sonew_compiled.rules._jacobi import RULES as _JACOBI
from sonew_compiled.rules._lu import RULES as _LU
from sonew_compiled.rules._pooling import RULES as _POOLING
from sonew_compiled.rules._refused import RULES as _REFUSED
from sonew_compiled.rules._rule import Rule
from sonew_compiled.rules._threefry import RULES as _THREEFRY
from sonew_compiled.rules._triangular import RULES as _TRIANGULAR
from sonew_compiled.rules._tridiagonal import RULES as _TRIDIAGONAL

RULES: tuple[Rule, ...] = (
    *_APPROX_TOP_K,
    *_CHOLESKY,
    *_FOURIER,
    *_HOUSEHOLDER,
    *_JACOBI,
    *_LU,
    *_POOLING,
    *_REFUSED,
    *_THREEFRY,
    *_TRIANGULAR,
    *_TRIDIAGONAL,
)
"""All replaced primitives, each once."""


def lowering_parameters() -> mlir.LoweringParameters:
    """The `_private_parameters` with which `jax.stages.Traced.lower` applies our rules."""
    # JAX annotates a tuple of length 1 and takes one of any length.
    rules: Any = tuple((rule.primitive, rule.lowering) for rule in RULES)
    return mlir.LoweringParameters(override_lowering_rules=rules)
