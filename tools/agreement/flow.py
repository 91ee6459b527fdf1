"""Control flow of random programs: branches, loops and transformations around programs within programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import lax

from agreement.scope import Function, Scope, Value
from agreement.vocabulary import WORDS

Word = Callable[[Scope], int]

DEEPEST = 2
"""The depth at which programs have no more control flow."""


def grow(scope: Scope, count: int, *, flow: bool = True) -> None:
    """Adds about `count` instructions."""
    words: Mapping[Word, int] = {**WORDS, **(FLOW if flow and scope.depth < DEEPEST else {})}
    names, weights = list(words), [float(each) for each in words.values()]
    total = sum(weights)
    for _ in range(8 * count):
        if len(scope.instructions) >= count:
            return
        word = names[int(scope.rng.choice(len(names), p=[each / total for each in weights]))]
        mark = len(scope.values), len(scope.instructions)
        try:
            word(scope)
        except LookupError:
            # Instructions that a word added before it failed are removed.
            del scope.values[mark[0] :], scope.instructions[mark[1] :]


def fitted(value: jax.Array, like: jax.Array) -> jax.Array:
    """A value repeated or cut to the shape of another, in its dtype."""
    if value.shape != like.shape:
        value = jnp.resize(value, like.shape) if value.size else jnp.zeros(like.shape, value.dtype)
    return value.astype(like.dtype)


def inner(scope: Scope, inputs: list[Value], count: int) -> Function:
    """An inner program over some inputs, which returns one floating-point array: its last, or an input unchanged."""
    child = Scope(scope.rng, inputs, depth=scope.depth + 1)
    grow(child, count)
    if child.chance(0.25):  # an input that is passed through
        return child.program([child.pick()])
    unread = [place for place in child.unread() if child.values[place].is_("float")]
    return child.program([unread[-1] if unread else child.pick()])


def cond(s: Scope) -> int:
    """Two branches."""
    test, x, y = s.pick("bool"), s.pick(), s.pick()
    yes, no = (inner(s, [s.values[x], s.values[y]], s.number(0, 2)) for _ in range(2))
    both = s.chance(0.3)

    def run(test: jax.Array, x: jax.Array, y: jax.Array) -> list[jax.Array]:
        def branch(program: Function) -> Function:
            return lambda x, y: (fitted(program(x, y)[0], x), *((y * 0.5 if program is yes else y,) if both else ()))

        return list(lax.cond(jnp.any(test), branch(yes), branch(no), x, y))

    return s.add(run, test, x, y)


def switch(s: Scope) -> int:
    """Several branches."""
    which, x = s.pick("int"), s.pick()
    branches = [inner(s, [s.values[x]], s.number(0, 1)) for _ in range(s.number(2, 3))]

    def run(which: jax.Array, x: jax.Array) -> jax.Array:
        index = which.reshape(-1)[0] % len(branches)
        return lax.switch(index, [lambda x, f=f: fitted(f(x)[0], x) for f in branches], x)

    return s.add(run, which, x)


def loop(s: Scope) -> int:
    """A loop of a fixed count, differentiated through."""
    x, y = s.pick(), s.pick()
    body = inner(s, [s.values[x], s.values[y]], s.number(1, 2))
    count = s.number(1, 4)

    def run(x: jax.Array, y: jax.Array) -> jax.Array:
        return lax.fori_loop(0, count, lambda i, c: jnp.tanh(fitted(body(c, y)[0], c) + 0.1 * c) + 0.01 * i, x)

    return s.add(run, x, y)


def loop_while(s: Scope) -> int:
    """A loop whose condition reads its values; JAX has no gradient of it."""
    x, y, bound = s.pick(), s.pick(), s.pick("int")
    body = inner(s, [s.values[x], s.values[y]], s.number(1, 2))
    swaps = s.chance(0.3)

    def run(x: jax.Array, y: jax.Array, bound: jax.Array) -> list[jax.Array]:
        limit = bound.reshape(-1)[0] % 4

        def step(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            i, a, b = carry
            new = jnp.sin(fitted(body(a, y)[0], a))
            return (i + 1, b, new) if swaps else (i + 1, new, b)

        carry = lax.stop_gradient((jnp.int32(0), x, jnp.cos(x)))
        return list(lax.stop_gradient(lax.while_loop(lambda c: c[0] < limit, step, carry)))[1:]

    return s.add(run, x, y, bound)


def scan(s: Scope) -> int:
    """A loop over the rows of a value, whose states are collected."""
    x, rows = s.pick(), s.pick(rank=1)
    value = s.values[rows]
    row = Value(*(jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (value.whole, value.single)))
    body = inner(s, [s.values[x], row], s.number(1, 2))
    reverse, collects = s.chance(0.3), s.chance(0.6)

    def run(x: jax.Array, rows: jax.Array) -> jax.Array:
        def step(carry: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
            new = jnp.tanh(fitted(body(carry, row)[0], carry) + 0.3 * jnp.mean(row))
            return new, jnp.mean(carry) * row

        last, collected = lax.scan(step, x, rows, reverse=reverse)
        return collected if collects else last

    return s.add(run, x, rows)


def mapped(s: Scope) -> int:
    """A program for each row, batched or in sequence, and perhaps rematerialised for the gradient."""
    rows = s.pick(rank=1)
    value = s.values[rows]
    row = Value(*(jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in (value.whole, value.single)))
    body = inner(s, [row], s.number(1, 2))
    way = s.choice(["map", "vmap", "remat"])

    def run(rows: jax.Array) -> jax.Array:
        def each(row: jax.Array) -> jax.Array:
            return body(row)[0]

        if way == "map":
            return lax.map(each, rows)
        return jax.vmap(jax.checkpoint(each) if way == "remat" else each)(rows)

    return s.add(run, rows)


def derived(s: Scope) -> int:
    """A derivative within the program, or a custom derivative."""
    x = s.pick()
    body = inner(s, [s.values[x]], s.number(1, 2))
    way = s.choice(["grad", "jvp", "custom", "clipped"])

    @jax.custom_vjp
    def identity(x: jax.Array) -> jax.Array:
        return x

    identity.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))

    @jax.custom_jvp
    def custom(x: jax.Array) -> jax.Array:
        return jnp.tanh(fitted(body(x)[0], x))

    custom.defjvp(lambda primals, tangents: (custom(primals[0]), jnp.cos(primals[0]) * tangents[0]))

    def run(x: jax.Array) -> jax.Array:
        if way == "grad":
            return jnp.tanh(jax.grad(lambda x: jnp.mean(jnp.sin(body(x)[0])))(x) * 3)
        if way == "jvp":
            return jnp.tanh(jax.jvp(lambda x: fitted(body(x)[0], x), (x,), (jnp.cos(x),))[1])
        return custom(x) if way == "custom" else identity(fitted(body(x)[0], x))

    return s.add(run, x)


FLOW: dict[Word, int] = {cond: 5, switch: 3, loop: 3, loop_while: 3, scan: 4, mapped: 3, derived: 3}
"""The words of control flow, each with its weight."""
