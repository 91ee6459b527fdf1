"""Many random programs in one module, and the search for those that differ from JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from agreement.case import Case, combine
from agreement.compare import disagreements
from agreement.programs import FIELDS, program

SIZE, DRAWS = 2, 3
"""The most instructions of a program in the tests, without those of its regions, and how many programs are drawn."""

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
    seeds: Sequence[int],
    *,
    size: int = SIZE,
    draws: int = DRAWS,
    devices: Sequence[str] = ("local-task", "local-sync", "vmvx"),
    evaluates: bool = True,
) -> dict[tuple[int, ...], list[str]]:
    """The differences from JAX of the programs of these seeds, compiled together, and in halves if no name tells whose.

    Returns:
      The lines by seed; differences that only several programs together show are under all of their seeds.
    """
    cases = {f"p{seed}": program(seed, size=size, draws=draws) for seed in seeds}
    together = _tried(cases, devices, evaluates=evaluates)
    if not together or len(seeds) == 1:
        return {tuple(seeds): together} if together else {}
    named = {(seed,): own for seed in seeds if (own := [each for each in together if f"/p{seed}/" in each])}
    if named:  # the losses, which all programs share, need not be looked into
        return named
    half = len(seeds) // 2
    apart: dict[tuple[int, ...], list[str]] = {}
    for part in (seeds[:half], seeds[half:]):
        apart |= finds(part, size=size, draws=draws, devices=devices, evaluates=evaluates)
    return apart or {tuple(seeds): together}


def modules(first: int, last: int, count: int = 50) -> list[range]:
    """The seeds from `first` up to `last`, in modules of `count`."""
    return [range(start, min(start + count, last)) for start in range(first, last, count)]


def _tried(cases: Mapping[str, Case], devices: Sequence[str], *, evaluates: bool) -> list[str]:
    try:
        case = combine({"trained": _TRAINED, **cases})
        return disagreements(case, devices=devices, steps=_STEPS, evaluates=evaluates)
    except Exception as error:  # a failure of the compiler is a find too
        return [f"{type(error).__name__}: {str(error)[:300]}"]


def report(found: dict[tuple[int, ...], list[str]], *, size: int = SIZE, draws: int = DRAWS) -> str:
    """The finds as text: the seeds, the differences, and the jaxpr if there is a single seed."""
    text = []
    for seeds, differences in found.items():
        text += [f"programs {', '.join(map(str, seeds))}:", *(f"  {each}" for each in dict.fromkeys(differences))]
        if len(seeds) == 1:
            case = program(seeds[0], size=size, draws=draws)
            params = jax.eval_shape(case.init, jax.random.key(0))
            text.append(f"{jax.make_jaxpr(case.loss)(params, dict(case.batch))}")
    return "\n".join(text)
