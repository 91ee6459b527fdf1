"""A random model with an optimizer for every seed: the same seed gives the same program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agreement.case import Case
from agreement.flow import DEEPEST, FLOW, Word, grow
from agreement.scope import Scope, Value
from agreement.vocabulary import WORDS, real

_THEMES: tuple[Word, ...] = (*WORDS, *FLOW)

# All programs have the same batch, so that several can be compiled together.
_EXAMPLES, _WIDTH = 4, 3
FIELDS = {
    "i": jax.ShapeDtypeStruct((_EXAMPLES,), jnp.int32),
    "m": jax.ShapeDtypeStruct((_EXAMPLES, _WIDTH), jnp.bool_),
    "x": jax.ShapeDtypeStruct((_EXAMPLES, _WIDTH), jnp.float32),
}
"""The batch of every program."""


def program(seed: int, *, size: int, draws: int = 1) -> Case:
    """The model of a seed: its parameters, its loss and its optimizer are all random, but for one instruction.

    The words of the vocabulary and of control flow take turns from seed to seed, so that few programs have them all.

    Args:
      seed: the same seed gives the same program.
      size: the most instructions, not counting those of regions and of the loss itself.
      draws: the number of programs to draw, of which the one is taken whose loss JAX prints in the fewest lines. Short
        programs are compiled sooner. If there are several, control flow is not nested.
    """
    rng = np.random.default_rng(seed)
    theme = _THEMES[seed % len(_THEMES)]
    found: list[tuple[int, Case]] = []
    while True:
        try:
            case = _drawn(rng, size, theme, depth=0 if draws == 1 else DEEPEST)
        except LookupError:  # no parameter is read
            continue
        found.append((_length(case.loss, case), case))
        if len(found) >= draws:
            shortest = min(found, key=lambda each: each[0])
            if _has_gradient(shortest[1]):
                return shortest[1]
            found.remove(shortest)


def _drawn(rng: np.random.Generator, size: int, theme: Word, *, depth: int) -> Case:
    scope = Scope(rng, [])
    by_example = scope.chance(0.2)
    shapes = {name: _shape(scope) for name in "uvw"[: scope.number(1, 2)]}
    starts = {name: _start(scope, shape) for name, shape in shapes.items()}

    def field(spec: jax.ShapeDtypeStruct) -> Value:
        shapes = [spec.shape[1:]] * 2 if by_example else [spec.shape, (1, *spec.shape[1:])]
        return Value(*(jax.ShapeDtypeStruct(shape, spec.dtype) for shape in shapes))

    params = [Value(*[jax.ShapeDtypeStruct(shape, jnp.float32)] * 2) for shape in shapes.values()]
    # Later values are more likely to be read, so the parameters come last.
    scope = Scope(rng, [*map(field, FIELDS.values()), *params], depth=depth)
    theme(scope)
    grow(scope, max(scope.number(1, size), len(scope.instructions)))
    results = scope.unread()[-2:]
    if not any(place >= len(FIELDS) for place in scope.read_for(results)):
        raise LookupError("no parameter is read")
    run = scope.program(results)

    def outputs(params: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> list[jax.Array]:
        inner = [params[name] for name in shapes]
        if by_example:
            return list(jax.vmap(lambda fields: run(*(fields[name] for name in FIELDS), *inner))(dict(batch)))
        return run(*(batch[name] for name in FIELDS), *inner)

    def loss(params: Any, batch: Any) -> jax.Array:
        return sum((_weighed(value) for value in outputs(params, batch) if value.size), jnp.zeros(()))

    return Case(
        init=lambda key: {name: start(key) for name, start in starts.items()},
        loss=loss,
        optimizer=_optimizer(scope),
        batch=FIELDS,
    )


def _length(function: Callable[..., Any], case: Case) -> int:
    """The number of lines in which JAX prints a function of parameters and batch."""
    params = jax.eval_shape(case.init, jax.random.key(0))
    return str(jax.make_jaxpr(function)(params, dict(case.batch))).count("\n")


def _has_gradient(case: Case) -> bool:
    try:
        return _length(jax.grad(case.loss), case) > 0
    except NotImplementedError:
        return False


def _weighed(value: jax.Array) -> jax.Array:
    """A number that differs from array to array, and whose gradient is constant, which takes no code."""
    weights = np.cos(np.arange(value.size)).reshape(value.shape)
    number = value.astype(real())
    return jnp.sum(number * weights.astype(number.dtype))


def _shape(scope: Scope) -> tuple[int, ...]:
    return tuple(scope.number(1, 6) for _ in range(scope.choice([0, 1, 2, 2, 2, 3])))


def _start(scope: Scope, shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    numbers = np.asarray(scope.rng.normal(size=shape), np.float32)
    constant = scope.chance(0.98)  # random numbers are expensive to compile
    return scope.choice([
        lambda key: numbers, lambda key: numbers, lambda key: jnp.full(shape, 0.3)
    ] if constant else [
        lambda key: jax.random.normal(key, shape), lambda key: jax.random.uniform(jax.random.split(key)[0], shape),
        lambda key: jax.random.normal(jax.random.key(3), shape),
        lambda key: jax.random.truncated_normal(key, -1, 1, shape),
    ])  # fmt: skip


def _guarded(base: Callable[[Any], optax.GradientTransformation]) -> Callable[[Any], optax.GradientTransformation]:
    """Skips a step whose gradients are large, by a branch that passes the old state through."""

    def make(rate: Any) -> optax.GradientTransformation:
        inner = base(rate)

        def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            fine = sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(grads)) < 0.7
            return jax.lax.cond(
                fine,
                lambda: inner.update(grads, state, params),
                lambda: (jax.tree.map(jnp.zeros_like, grads), state),
            )

        return optax.GradientTransformation(inner.init, update)

    return make


def _optimizer(scope: Scope) -> Callable[[Any], optax.GradientTransformation]:
    return scope.choice([
        *[optax.sgd] * 60, lambda rate: optax.sgd(rate, momentum=0.9), lambda rate: optax.adam(rate, eps=1e-2),
        _guarded(optax.sgd), _guarded(lambda rate: optax.sgd(rate, momentum=0.9)),
        lambda rate: optax.apply_if_finite(optax.sgd(rate, 0.9), 3),
        lambda rate: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate)),
    ])  # fmt: skip
