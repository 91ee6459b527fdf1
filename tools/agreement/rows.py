"""Tables of operations; each row is a case, and the cases are compiled together and judged one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agreement.case import Case, combine, weighed
from agreement.compare import disagreements
from sonew_compiled.optimizer import optimizer_factory
from sonew_compiled.presets import optimizer_settings

STEPS = 10

BATCH = {"x": jax.ShapeDtypeStruct((6, 5), jnp.float32), "i": jax.ShapeDtypeStruct((6,), jnp.int32)}
"""The batch of most rows: normal numbers, and integers from 0 to 4."""


def row(
    output: Callable[[Any, Any], jax.Array],
    params: Mapping[str, tuple[int, ...]] | Callable[[jax.Array], Any],
    *,
    batch: Mapping[str, tuple[int, ...] | jax.ShapeDtypeStruct] = BATCH,
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.sgd,
) -> Case:
    """A case whose loss is the mean of a smooth function of `output(params, batch)`.

    Args:
      output: any array, of booleans, integers or numbers.
      params: `init`, or the shapes of parameters, which then start from constants.
      batch: the fields; a shape alone means float32.
      optimizer: makes the transformation from a learning rate.
    """

    def drawn(key: jax.Array) -> dict[str, np.ndarray]:
        del key  # random numbers would take most of the compile time
        assert not callable(params)
        rng = np.random.default_rng(0)
        return {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in params.items()}

    def loss(p: Any, b: Any) -> jax.Array:
        return weighed(output(p, b)).astype(jnp.float32)

    fields = {
        name: jax.ShapeDtypeStruct(spec, jnp.float32) if isinstance(spec, tuple) else spec
        for name, spec in batch.items()
    }
    init = params if callable(params) else drawn
    return Case(init=init, loss=loss, optimizer=optimizer, batch=fields)


def by_optimizers(
    rows: Mapping[str, Case], names: Sequence[str] = ("adam", "tridiag-sonew", "muon")
) -> dict[str, Case]:
    """Each row with each of these optimizers of the presets, by its name and the optimizer's."""
    optimizers = {name: optimizer_factory(optimizer_settings(name)) for name in names}
    return {
        f"{name} by {optimizer}": dataclasses.replace(case, optimizer=make)
        for optimizer, make in optimizers.items()
        for name, case in rows.items()
    }


class Table:
    """Rows that are compiled together, or in halves if that fails without the name of a row."""

    def __init__(
        self,
        rows: Mapping[str, Case],
        *,
        group: int = 30,
        rate: float = 1.0,
        trained: bool = True,
        chained: int = STEPS,
        evaluates: bool = True,
    ) -> None:
        self.rows = rows
        self._evaluates = evaluates
        self._rate = rate
        self._steps, self._chained = (1, chained) if trained else (0, 0)
        alike: list[list[str]] = []
        for name, case in rows.items():  # rows that are compiled together share a batch
            fitting = [names for names in alike if rows[names[0]].batch == case.batch and len(names) < group]
            fitting[0].append(name) if fitting else alike.append([name])
        self._groups = alike
        self._found: dict[str, list[str]] = {}

    def disagreements(self, name: str) -> list[str]:
        """The differences of a row from JAX over ten steps, or of all rows together if no row differs alone."""
        if name not in self._found:
            group = next(each for each in self._groups if name in each)
            self._found |= self._judged(group)
        return self._found[name]

    def _judged(self, group: list[str]) -> dict[str, list[str]]:
        together = self._tried(combine({each: self.rows[each] for each in group}) if group[1:] else self.rows[group[0]])
        if not together or len(group) == 1:
            return dict.fromkeys(group, together)
        named = {each: [line for line in together if f"/{each}/" in line] for each in group}
        if any(named.values()):  # the losses, which all rows share, need not be looked into
            return named
        half = len(group) // 2
        apart = self._judged(group[:half]) | self._judged(group[half:])
        if not any(apart.values()):
            return {each: [f"together with {', '.join(group)}: {line}" for line in together] for each in group}
        return apart

    def _tried(self, case: Case) -> list[str]:
        try:
            return disagreements(
                case, steps=self._steps, chained=self._chained, rate=self._rate, evaluates=self._evaluates
            )
        except Exception as error:  # a failure of the compiler is a find too
            return [f"{type(error).__name__}: {str(error)[:300]}"]
