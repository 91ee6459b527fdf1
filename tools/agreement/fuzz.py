"""Many random programs in one module, and which of them it is where the module differs from JAX."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from agreement.case import Case, combine
from agreement.compare import DEVICES, disagreements
from agreement.programs import FIELDS, program

SIZE = 2
"""How many instructions a program has at most in the tests, besides those of its regions."""

_STEPS = 2
# A program of orders and integers has no gradient; a model that trains nothing is refused.
_TRAINED = Case(
    init=lambda key: {"z": jnp.ones(())},
    loss=lambda params, batch: jnp.square(params["z"]),
    optimizer=lambda rate: optax.sgd(0.1 * rate),
    batch=FIELDS,
)


def finds(
    seeds: Sequence[int], *, size: int = SIZE, devices: Sequence[str] = tuple(DEVICES)
) -> dict[tuple[int, ...], list[str]]:
    """What of the programs of these seeds differs from JAX: compiled together, and where that tells nothing in halves.

    Returns:
      The lines by seed; under all seeds what only they together show.
    """
    together = _tried(seeds, size, devices)
    if not together or len(seeds) == 1:
        return {tuple(seeds): together} if together else {}
    named = {(seed,): lines for seed in seeds if (lines := [each for each in together if f"/p{seed}/" in each])}
    if named:  # the losses are of all
        return named
    half = len(seeds) // 2
    apart = finds(seeds[:half], size=size, devices=devices) | finds(seeds[half:], size=size, devices=devices)
    return apart or {tuple(seeds): together}


def modules(first: int, last: int, count: int = 25) -> list[range]:
    """The seeds from `first` to before `last`, so many a module."""
    return [range(start, min(start + count, last)) for start in range(first, last, count)]


def _tried(seeds: Sequence[int], size: int, devices: Sequence[str]) -> list[str]:
    cases = {f"p{seed}": program(seed, size=size) for seed in seeds}
    try:
        return disagreements(combine({"trained": _TRAINED, **cases}), devices=devices, steps=_STEPS)
    except Exception as error:  # a compiler's failure is a find like another
        return [f"{type(error).__name__}: {str(error)[:300]}"]


def report(found: dict[tuple[int, ...], list[str]], *, size: int = SIZE) -> str:
    """What to read of finds: the seeds, what differs, and the program of one seed as JAX has it."""
    lines = []
    for seeds, differences in found.items():
        lines += [f"programs {', '.join(map(str, seeds))}:", *(f"  {each}" for each in dict.fromkeys(differences))]
        if len(seeds) == 1:
            case = program(seeds[0], size=size)
            params = jax.eval_shape(case.init, jax.random.key(0))
            lines.append(f"{jax.make_jaxpr(case.loss)(params, dict(case.batch))}")
    return "\n".join(lines)
