"""Decompositions of general matrices for which there is no rule, each with a suggestion of another function."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from jax.extend.core import Primitive
from jax.lax import linalg

from sonew_compiled.errors import UsageError
from sonew_compiled.rules._rule import Rule

_INSTEAD: Mapping[Primitive, str] = MappingProxyType(
    {
        linalg.eig_p: "eig, which eigvals and roots take too, has no lowering; take eigh of a symmetric matrix",
        linalg.hessenberg_p: "hessenberg has no lowering; take qr, or lu for solutions and determinants",
        linalg.schur_p: (
            "schur, which sqrtm, funm and solve_sylvester take too, has no lowering; "
            "of a symmetric matrix take functions of eigh's values"
        ),
        linalg.tridiagonal_p: "tridiagonal has no lowering; take eigh",
    }
)


def _refusing(message: str) -> Any:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise UsageError(f"{message}, or compute it from constants with SciPy beforehand")

    return refuse


RULES: tuple[Rule, ...] = tuple(Rule(primitive, _refusing(message)) for primitive, message in _INSTEAD.items())
