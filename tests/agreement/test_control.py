"""Control flow and the idioms of automatic differentiation, one by one, over ten steps."""

import functools

import jax
import jax.numpy as jnp
import pytest
from agreement.case import Case
from agreement.rows import Table, row
from jax import lax

W = {"w": (5, 4), "u": (4, 4), "b": (4,)}


def hidden(p, b):
    return jnp.tanh(b["x"] @ p["w"])


def fixed_point(p, b):
    """A deep equilibrium: iterated to convergence, and differentiated only at the end."""
    x, u = b["x"] @ p["w"], 0.2 * jnp.tanh(p["u"])

    def iterate(z):
        return jnp.tanh(x + z @ u)

    z, _, _ = lax.while_loop(
        lambda c: (jnp.max(jnp.abs(c[0] - c[1])) > 1e-6) & (c[2] < 50),
        lambda c: (iterate(c[0]), c[0], c[2] + 1),
        lax.stop_gradient((jnp.zeros_like(x), jnp.ones_like(x), jnp.int32(0))),
    )
    return iterate(lax.stop_gradient(z))


def power(x, count):
    return lax.fori_loop(0, count, lambda i, y: y * jnp.cos(x) + i, x)


CONTROL: dict[str, Case] = {
    "cond": row(lambda p, b: lax.cond(b["x"].sum() > 0, jnp.sin, lambda y: y @ p["u"], hidden(p, b)), W),
    "cond that hands through": row(
        lambda p, b: lax.cond(b["x"].sum() > 0, lambda y: y, lambda y: y + p["b"], hidden(p, b)), W
    ),
    "cond that hands a parameter through": row(
        lambda p, b: lax.cond(b["i"].sum() % 2 == 0, lambda: p["u"], lambda: jnp.cos(p["u"])), W
    ),
    "cond of constants": row(
        lambda p, b: p["b"] * lax.cond(b["x"].sum() > 0, lambda: jnp.ones(4), lambda: jnp.arange(4.0)), W
    ),
    "cond of several results": row(
        lambda p, b: sum(
            lax.cond(b["x"].sum() > 0, lambda y: (y, p["b"] * y), lambda y: (jnp.sin(y), y), hidden(p, b))
        ),
        W,
    ),
    "cond in cond": row(
        lambda p, b: lax.cond(
            b["x"].sum() > 0,
            lambda y: lax.cond(b["i"].sum() > 9, lambda: y, lambda: y * p["b"]),
            lambda y: p["b"] + y,
            hidden(p, b),
        ),
        W,
    ),
    "switch": row(
        lambda p, b: lax.switch(b["i"][0], [jnp.sin, jnp.cos, lambda y: y @ p["u"], jnp.exp], hidden(p, b)), W
    ),
    "switch that hands through": row(
        lambda p, b: lax.switch(b["i"][0] % 3, [lambda y: y, lambda y: y + p["b"], lambda y: y * 0.5], hidden(p, b)), W
    ),
    "platform_dependent": row(
        lambda p, b: lax.platform_dependent(hidden(p, b), cpu=jnp.sin, default=jnp.sin) + p["b"], W
    ),
    "where of dear sides": row(lambda p, b: jnp.where(hidden(p, b) > 0, jnp.exp(hidden(p, b)), p["b"]), W),
    "while, a counter": row(
        lambda p, b: (
            lax.stop_gradient(
                lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, jnp.tanh(c[1] @ p["u"])), (0, hidden(p, b)))[1]
            )
            * p["b"]
        ),
        W,
    ),
    "while, on values": row(fixed_point, W),
    "while, a data-dependent count": row(
        lambda p, b: (
            lax.stop_gradient(
                lax.while_loop(
                    lambda c: c[0] < b["i"][0], lambda c: (c[0] + 1, jnp.sin(c[1]) + p["b"]), (0, hidden(p, b))
                )[1]
            )
            * p["b"]
        ),
        W,
    ),
    "while that hands through": row(
        lambda p, b: (
            lax.stop_gradient(
                lax.while_loop(
                    lambda c: c[0] < 3, lambda c: (c[0] + 1, c[2], c[1]), (0, hidden(p, b), p["b"] + hidden(p, b))
                )[1]
            )
            * p["b"]
        ),
        W,
    ),
    "fori_loop": row(lambda p, b: power(hidden(p, b), 5), W),
    "fori_loop, weights shared": row(
        lambda p, b: lax.fori_loop(0, 4, lambda i, c: jnp.tanh(c @ p["u"]), hidden(p, b)) + hidden(p, b), W
    ),
    "fori_loop, a traced bound": row(lambda p, b: lax.stop_gradient(power(hidden(p, b), b["i"][0])) * p["b"], W),
    "fori_loop, updates in place": row(
        lambda p, b: lax.fori_loop(0, 4, lambda i, t: t.at[i].set(jnp.sin(t[i - 1])), p["u"]), W
    ),
    "scan": row(lambda p, b: lax.scan(lambda c, x: (jnp.tanh(c + x), c * x), p["b"], p["u"])[1], W),
    "scan, reverse": row(
        lambda p, b: lax.scan(lambda c, x: (jnp.tanh(c + x), c * x), p["b"], p["u"], reverse=True)[1], W
    ),
    "scan, no inputs": row(
        lambda p, b: lax.scan(lambda c, _: (jnp.tanh(c @ p["u"]), c[0]), hidden(p, b), None, 3)[1], W
    ),
    "scan, unrolled": row(lambda p, b: lax.scan(lambda c, x: (jnp.sin(c * x), c), p["b"], p["u"], unroll=2)[1], W),
    "scan over examples": row(lambda p, b: lax.scan(lambda c, x: (jnp.tanh(c + x @ p["w"]), c), p["b"], b["x"])[1], W),
    "scan in scan": row(
        lambda p, b: lax.scan(
            lambda c, x: (lax.scan(lambda d, y: (jnp.sin(d + y), y), c, p["u"])[0], x * c), p["b"], p["u"]
        )[1],
        W,
    ),
    "scan in cond": row(
        lambda p, b: lax.cond(
            b["x"].sum() > 0, lambda: lax.scan(lambda c, x: (jnp.sin(c + x), c), p["b"], p["u"])[1], lambda: p["u"]
        ),
        W,
    ),
    "cond in scan": row(
        lambda p, b: lax.scan(lambda c, x: (lax.cond(x[0] > 0, lambda: c, lambda: jnp.sin(c + x)), c), p["b"], p["u"])[
            1
        ],
        W,
    ),
    "scan of integers": row(
        lambda p, b: lax.scan(lambda c, x: ((c * 5 + x) % 7, c), jnp.int32(1), b["i"])[1][:, None] * p["b"], W
    ),
    "scan with counters": row(
        lambda p, b: lax.scan(lambda c, x: ((c[0] + 1, c[1] * jnp.cos(x)), c[0] * x), (0, p["b"]), p["u"])[1], W
    ),
    "map": row(lambda p, b: lax.map(lambda x: jnp.sin(x @ p["w"]), b["x"]), W),
    "map, in batches": row(lambda p, b: lax.map(lambda x: jnp.sin(x) @ p["u"], p["u"], batch_size=2), W),
    "vmap": row(lambda p, b: jax.vmap(lambda u: jax.vmap(lambda x: x @ u)(p["u"]))(p["u"]), W),
    "vmap of cond": row(
        lambda p, b: jax.vmap(lambda x: lax.cond(x.sum() > 0, jnp.sin, lambda y: y * p["b"][0], x))(p["u"]), W
    ),
}


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.01, 0.01),))


@jax.custom_vjp
def reversed_gradient(x):
    return jnp.sin(x)


reversed_gradient.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (-g * x,))


@jax.custom_jvp
def softened(x):
    return jnp.log1p(jnp.exp(x))


softened.defjvp(lambda primals, tangents: (softened(primals[0]), jax.nn.sigmoid(primals[0]) * tangents[0]))


def scalar(p, b):
    return jnp.sum(jnp.sin(b["x"] @ p["w"]) ** 2)


def penalised(p, b):
    gradient = jax.grad(lambda x: jnp.sum(jnp.tanh(x @ p["w"]) ** 3))(b["x"])
    return jnp.sqrt(jnp.sum(gradient**2, -1) + 0.1)


@functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
def block(p, x):
    return jnp.tanh(jnp.sin(x @ p["u"]) @ p["u"])


DIFFERENTIATION: dict[str, Case] = {
    "stop_gradient": row(lambda p, b: hidden(p, b) * lax.stop_gradient(p["b"]) + p["b"], W),
    "straight-through": row(lambda p, b: (y := hidden(p, b) * 3) + lax.stop_gradient(jnp.round(y * 2.3) / 2 - y), W),
    "clipped gradients": row(lambda p, b: clipped(hidden(p, b)) * p["b"], W),
    "custom_vjp": row(lambda p, b: reversed_gradient(hidden(p, b)), W),
    "custom_jvp": row(lambda p, b: softened(hidden(p, b)), W),
    "remat": row(lambda p, b: jax.checkpoint(lambda y: jnp.sin(y @ p["u"]))(hidden(p, b)), W),
    "remat, a policy": row(lambda p, b: block(p, block(p, hidden(p, b))), W),
    "remat in scan": row(
        lambda p, b: lax.scan(
            lambda c, u: (jax.checkpoint(lambda c: jnp.tanh(c * u + jnp.sin(c)))(c), None), hidden(p, b), p["u"]
        )[0],
        W,
    ),
    "gradient in the loss": row(penalised, W),
    "hessian": row(lambda p, b: jax.hessian(lambda w: jnp.sum(jnp.sin(w @ p["u"]) ** 2))(p["b"]), W),
    "jacobian": row(lambda p, b: jax.jacfwd(lambda w: jnp.tanh(w @ p["u"]))(p["b"]), W),
    "product with a hessian": row(
        lambda p, b: jax.jvp(jax.grad(lambda w: jnp.sum(jnp.tanh(w @ p["u"]) ** 2)), (p["b"],), (p["u"][0],))[1], W
    ),
    "jvp": row(lambda p, b: jax.jvp(jnp.tanh, (hidden(p, b),), (hidden(p, b) * p["b"],))[1], W),
    "linearize": row(lambda p, b: jax.linearize(jnp.tanh, p["u"])[1](jnp.sin(p["u"])), W),
    "vjp": row(lambda p, b: jax.vjp(lambda u: jnp.sin(u @ u), p["u"])[1](p["u"] * 0.5)[0], W),
    "unrolled inner steps": row(
        lambda p, b: functools.reduce(
            lambda w, _: w - 0.1 * jax.grad(lambda w: jnp.mean((jnp.tanh(p["u"] @ w) - p["b"]) ** 2))(w),
            range(3),
            p["b"],
        ),
        W,
    ),
    "inner steps in a scan": row(
        lambda p, b: lax.scan(
            lambda w, _: (w - 0.1 * jax.grad(lambda w: jnp.mean((jnp.tanh(p["u"] @ w) - p["b"]) ** 2))(w), None),
            p["b"],
            None,
            3,
        )[0],
        W,
    ),
    "optimization_barrier": row(lambda p, b: lax.optimization_barrier(hidden(p, b)) * p["b"], W),
    "named_call": row(lambda p, b: jax.named_call(lambda y: y * p["b"], name="scaled")(hidden(p, b)), W),
    "closed_call of jit": row(lambda p, b: jax.jit(jnp.sin)(jax.jit(lambda y: y @ p["u"])(hidden(p, b))), W),
    "log of a checked sum": row(lambda p, b: jnp.log(jnp.where(p["b"] > 0, jnp.where(p["b"] > 0, p["b"], 1), 2)), W),
}

TABLES = {"control": Table(CONTROL, group=8), "differentiation": Table(DIFFERENTIATION)}


@pytest.mark.parametrize(("table", "name"), [(key, name) for key, table in TABLES.items() for name in table.rows])
def test_it_is_what_jax_computes(table: str, name: str) -> None:
    assert not TABLES[table].disagreements(name)
