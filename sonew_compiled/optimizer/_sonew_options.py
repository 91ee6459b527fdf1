"""The options of SONew, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._eight_bits import GAMMA, empty_state
from sonew_compiled.optimizer._graft import GRAFTS


@dataclass(frozen=True, kw_only=True)
class SonewOptions:
    """The checked options of `scale_by_sonew`, under the names of its arguments.

    A number may be a traced scalar, as under `optax.inject_hyperparams`. Only known numbers are checked.
    """

    band: int | jax.Array
    b1: float
    b2: float
    eps: float
    eps_mode: str
    grafting: str
    graft_eps: float
    rank1: str
    flatten: str
    tolerance: float | None
    state: str

    def __post_init__(self) -> None:
        _accept("eps_mode", self.eps_mode, ("relative", "absolute"))
        _accept("grafting", self.grafting, GRAFTS)
        _accept("rank1", self.rank1, ("adam", "sonew"))
        _accept("flatten", self.flatten, ("column", "row"))
        _accept("state", self.state, ("float", "int8"))
        if is_known(self.band) and not _is_whole(self.band):
            raise ValueError(f"band is {self.band!r}; give a whole number from 0 (diagonal) on, 1 is tridiagonal")
        if self.state == "int8" and is_known(self.band) and self.band > 1:
            raise ValueError(
                f"band is {self.band} and state is 'int8', but rounded correlations of three neighbours need not be "
                "those of any statistics; give band 0 or 1, or state 'float'"
            )
        for name in ("b1", "b2"):
            if is_known(value := getattr(self, name)) and not 0 <= value < 1:
                raise ValueError(f"{name} is {value!r}; give a decay in [0, 1), such as 0.9")
        for name in ("eps", "graft_eps"):
            if is_known(value := getattr(self, name)) and not (0 < value < math.inf):
                raise ValueError(f"{name} is {value!r}; give a positive number, such as 1e-6")
        if self.tolerance is not None and is_known(self.tolerance) and not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance is {self.tolerance!r}; give None (the dtype's epsilon) or a number in [0, 1)")

    def bands_of(self, leaf: jax.Array) -> int:
        """The number of off-diagonals that are kept for `leaf`."""
        if leaf.ndim <= 1 and self.rank1 == "adam":
            return 0
        if not is_known(self.band):
            raise ValueError("band is traced, and the shapes of the state depend on it; call init outside of jax.jit")
        return int(self.band)

    @property
    def gamma(self) -> float | None:
        """The tolerance of edge removal; None leaves it to the dtype of the statistics."""
        return GAMMA if self.tolerance is None and self.state == "int8" else self.tolerance

    def empty(self, leaf: jax.Array) -> tuple[Any, tuple[Any, ...]]:
        """The momentum and the bands of a leaf before the first step."""
        count = self.bands_of(leaf)
        if self.state == "int8":
            return empty_state(leaf, count)
        return jnp.zeros_like(leaf), tuple(jnp.zeros_like(leaf) for _ in range(count + 1))

    def check_bands(self, leaf: jax.Array, bands: tuple[Any, ...]) -> None:
        """Refuses a state of another band. A traced band is not known, and the state's own is used."""
        if is_known(self.band) and len(bands) - 1 != self.bands_of(leaf):
            raise ValueError(f"band is {self.band} and the state has {len(bands) - 1}; make a new state by init")


def is_known(value: Any) -> bool:
    """Whether `value` is a number while a step is traced."""
    return not isinstance(value, jax.core.Tracer)


def _is_whole(band: Any) -> bool:
    if isinstance(band, jax.Array):
        return band.ndim == 0 and jnp.issubdtype(band.dtype, jnp.integer) and bool(band >= 0)
    return isinstance(band, int) and not isinstance(band, bool) and band >= 0


def _accept(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(accepted)}")
