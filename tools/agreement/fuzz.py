"""Many random programs in one module, and the search for those that differ from JAX."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from agreement.case import Case, combine
from agreement.compare import DEVICES, disagreements
from agreement.programs import FIELDS, program

SIZE = 2
"""The most instructions of a program in the tests, not counting those of its regions."""

_STEPS = 2
# A program of sorts and integers may have no gradient, and a model that trains nothing is refused. So this one is
# added.
_TRAINED = Case(
    init=lambda key: {"z": jnp.ones(())},
    loss=lambda params, batch: jnp.square(params["z"]),
    optimizer=lambda rate: optax.sgd(0.1 * rate),
    batch=FIELDS,
)


def finds(
    seeds: Sequence[int], *, size: int = SIZE, devices: Sequence[str] = tuple(DEVICES)
) -> dict[tuple[int, ...], list[str]]:
    """The differences from JAX of the programs of these seeds, compiled together, and in halves if no name tells whose.

    Returns:
      The lines by seed; differences that only several programs together show are under all of their seeds.
    """
    together = _tried(seeds, size, devices)
    if not together or len(seeds) == 1:
        return {tuple(seeds): together} if together else {}
    named = {(seed,): lines for seed in seeds if (lines := [each for each in together if f"/p{seed}/" in each])}
    if named:  # the losses, which all programs share, need not be looked into
        return named
    half = len(seeds) // 2
    apart = finds(seeds[:half], size=size, devices=devices) | finds(seeds[half:], size=size, devices=devices)
    return apart or {tuple(seeds): together}


def modules(first: int, last: int, count: int = 25) -> list[range]:
    """The seeds from `first` up to `last`, in modules of `count`."""
    return [range(start, min(start + count, last)) for start in range(first, last, count)]


def _tried(seeds: Sequence[int], size: int, devices: Sequence[str]) -> list[str]:
    cases = {f"p{seed}": program(seed, size=size) for seed in seeds}
    try:
        return disagreements(combine({"trained": _TRAINED, **cases}), devices=devices, steps=_STEPS)
    except Exception as error:  # a failure of the compiler is a find too
        return [f"{type(error).__name__}: {str(error)[:300]}"]


def report(found: dict[tuple[int, ...], list[str]], *, size: int = SIZE) -> str:
    """The finds as text: the seeds, the differences, and the jaxpr if there is a single seed."""
    lines = []
    for seeds, differences in found.items():
        lines += [f"programs {', '.join(map(str, seeds))}:", *(f"  {each}" for each in dict.fromkeys(differences))]
        if len(seeds) == 1:
            case = program(seeds[0], size=size)
            params = jax.eval_shape(case.init, jax.random.key(0))
            lines.append(f"{jax.make_jaxpr(case.loss)(params, dict(case.batch))}")
    return "\n".join(lines)
