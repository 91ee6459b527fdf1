"""The instructions of random programs: elementwise, reductions, shapes, indices, sorts, products, random draws.

Each takes a scope, chooses operands and options by its random numbers, and adds itself. A LookupError means that the
scope has no fitting value. All have bounded slopes, or nearly so: a result must not depend on the last bits of others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from agreement.scope import Scope


def real() -> jnp.dtype:
    """float32, or float64 if JAX computes in it."""
    return jnp.result_type(float)


def tame(scope: Scope, place: int) -> int:
    """Usually bounds a value that may have grown."""
    return (
        scope.add(scope.choice([jnp.tanh, jnp.sin, lambda x: x / (1 + jnp.abs(x))]), place)
        if scope.chance(0.7)
        else place
    )


_UNARY = [
    jnp.tanh, jnp.sin, jnp.cos, jax.nn.sigmoid, jax.nn.gelu, jax.nn.silu, jax.nn.softplus, jax.nn.relu, jnp.abs,
    jnp.arctan, jnp.negative, jnp.square, jax.nn.elu, jax.scipy.special.erf, jax.nn.leaky_relu, jnp.arcsinh,
    lambda x: jnp.exp(-x * x), lambda x: jnp.log1p(x * x), lambda x: jnp.sqrt(1 + x * x), lambda x: 1 / (1 + x * x),
    lambda x: lax.rsqrt(x * x + 0.5), lambda x: jnp.clip(x, -0.7, 0.6), lambda x: jnp.cbrt(x * x + 0.2),
    lambda x: jnp.expm1(jnp.tanh(x)), lambda x: x + lax.stop_gradient(jnp.round(x * 1.7) - x),
    lambda x: lax.stop_gradient(jnp.floor(x * 1.3)) * 0.2, lambda x: jnp.sign(x) * 0.5, lambda x: 0.5 * x + 0.25,
]  # fmt: skip

_BINARY = [
    jnp.add, jnp.subtract, jnp.multiply, jnp.maximum, jnp.minimum, jnp.logaddexp,
    lambda x, y: x / (1 + y * y), lambda x, y: jnp.arctan2(x, y * y + 0.5), lambda x, y: jnp.where(x > y, x, 0.5 * y),
    lambda x, y: jnp.power(1 + jnp.abs(x), jnp.tanh(y)), lambda x, y: jnp.sqrt(x * x + y * y + 0.1),
    lambda x, y: jnp.tanh(x) * jnp.sin(y), lambda x, y: (x - y) ** 2,
]  # fmt: skip

_INTEGER = [
    lambda i: (i * 5 + 3) % 7, lambda i: i ^ 5, lambda i: i & 3, lambda i: i | 4, lambda i: -i, lambda i: i << 1,
    lambda i: i >> 1, lambda i: lax.population_count(i), lambda i: lax.clz(i), lambda i: i // 2, jnp.abs,
    lambda i: jnp.clip(i, 0, 3), lambda i: jnp.bitwise_not(i) % 5,
]  # fmt: skip


def unary(s: Scope) -> int:
    """An elementwise function of one number."""
    return s.add(s.choice(_UNARY), s.pick())


def binary(s: Scope) -> int:
    """An elementwise function of two numbers, which may be broadcast."""
    return tame(s, s.add(s.choice(_BINARY), s.pick(), s.pick()))


def where(s: Scope) -> int:
    """A select by booleans."""
    return s.add(jnp.where, s.pick("bool"), s.pick(), s.pick())


def compare(s: Scope) -> int:
    """Booleans from a comparison of numbers."""
    kind = s.choice(["float", "int"])
    function = s.choice([jnp.greater, jnp.less_equal, jnp.not_equal if kind == "int" else jnp.less])
    return s.add(function, s.pick(kind), s.pick(kind))


def logic(s: Scope) -> int:
    """Booleans from booleans."""
    function = s.choice([jnp.logical_and, jnp.logical_or, jnp.logical_xor, lambda a, b: a & ~b])
    return s.add(function, s.pick("bool"), s.pick("bool"))


def integers(s: Scope) -> int:
    """Integers from integers."""
    if s.chance(0.5):
        return s.add(s.choice(_INTEGER), s.pick("int"))
    return s.add(
        s.choice([jnp.add, jnp.maximum, lambda i, j: (i * j) % 11, jnp.bitwise_xor]), s.pick("int"), s.pick("int")
    )


def convert(s: Scope) -> int:
    """One kind of number from another."""
    way = s.choice(["int to float", "bool to float", "float to int", "bool to int"])
    if way == "float to int":
        return s.add(lambda x: jnp.floor(jnp.clip(x, -2, 2) * 1.9).astype(jnp.int32), s.pick())
    if way == "bool to int":
        return s.add(lambda b: b.astype(jnp.int32), s.pick("bool"))
    return s.add(lambda i: jnp.clip(i.astype(real()), -9, 9) * 0.3, s.pick(way.split()[0]))


def bits(s: Scope) -> int:
    """A magnitude from the bits of a number."""

    def magnitude(x: jax.Array) -> jax.Array:
        if x.dtype != jnp.float32:
            return lax.stop_gradient(jnp.abs(x))
        return lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32) & 0x7FFFFFFF, jnp.float32)

    return s.add(magnitude, s.pick())


def reduction(s: Scope) -> int:
    """A reduction over one or several axes."""
    place = s.pick(rank=1)
    rank = s.values[place].rank
    axes = tuple(sorted(s.rng.permutation(rank)[: s.number(1, rank)].tolist()))
    keep = s.chance(0.3)
    function = s.choice([
        jnp.sum, jnp.mean, jnp.max, jnp.min, jax.nn.logsumexp, jnp.var, lambda x, **k: jnp.prod(jnp.tanh(x), **k),
        lambda x, **k: jnp.sqrt(jnp.sum(x * x, **k) + 0.1),
    ])  # fmt: skip
    return tame(s, s.add(lambda x: function(x, axis=axes, keepdims=keep), place))


def normalise(s: Scope) -> int:
    """Softmax, layer norm and the like along an axis."""
    place = s.pick(rank=1)
    axis = s.number(0, s.values[place].rank - 1)
    function = s.choice([
        lambda x: jax.nn.softmax(x, axis), lambda x: jax.nn.log_softmax(x, axis),
        lambda x: (x - x.mean(axis, keepdims=True)) * lax.rsqrt(x.var(axis, keepdims=True) + 0.1),
    ])  # fmt: skip
    return s.add(function, place)


def counted(s: Scope) -> int:
    """A reduction to integers or booleans."""
    place = s.pick(rank=1)
    axis = s.number(0, s.values[place].rank - 1)
    function = s.choice([
        lambda x: jnp.argmax(x, axis).astype(jnp.int32), lambda x: jnp.argmin(x, axis).astype(jnp.int32),
        lambda x: jnp.any(x > 0.4, axis), lambda x: jnp.all(x < 0.9, axis),
        lambda x: jnp.sum(x > 0, axis, dtype=jnp.int32),
    ])  # fmt: skip
    return s.add(function, place)


def cumulative(s: Scope) -> int:
    """Cumulative sums, products and extremes."""
    place = s.pick(rank=1)
    axis, back = s.number(0, s.values[place].rank - 1), s.chance(0.4)
    function = s.choice([
        lax.cumsum, lax.cummax, lax.cummin, lax.cumlogsumexp, lambda x, a, reverse: lax.cumprod(jnp.cos(x), a, reverse),
        lambda x, a, reverse: lax.associative_scan(lambda p, q: 0.5 * p + q, x, axis=a, reverse=reverse),
    ])  # fmt: skip
    return tame(s, s.add(lambda x: function(x, axis, reverse=back), place))


def sort(s: Scope) -> int:
    """Sorted numbers, their permutation, or the largest of them."""
    place = s.pick(rank=1)
    axis = s.number(0, s.values[place].rank - 1)
    length = s.values[place].shape[axis]
    low = s.number(1, length)
    function = s.choice([
        lambda x: jnp.sort(x, axis), lambda x: jnp.sort(x, axis, descending=True),
        lambda x: jnp.argsort(x, axis).astype(jnp.int32), lambda x: jnp.median(x, axis),
        lambda x: jnp.argsort(jnp.argsort(x, axis), axis).astype(jnp.int32),
        lambda x: lax.top_k(jnp.moveaxis(x, axis, -1), low)[0],
        lambda x: lax.top_k(jnp.moveaxis(x, axis, -1), low)[1],
        lambda x: sum(lax.sort((x, jnp.sin(x)), dimension=axis, num_keys=1)),
        lambda x: jnp.quantile(x, 0.3, axis),
    ])  # fmt: skip
    return s.add(function, place)


def reshape(s: Scope) -> int:
    """The same elements in another shape."""
    place = s.pick(s.choice(["float", "float", "int", "bool"]))
    value = s.values[place]
    rank = value.rank
    order = tuple(s.rng.permutation(rank).tolist())
    axis = s.number(0, max(rank - 1, 0))
    options = [lambda x: x.reshape(-1), lambda x: jnp.expand_dims(x, axis), lambda x: x[..., None]]
    if rank:
        options += [
            lambda x: jnp.transpose(x, order), lambda x: jnp.flip(x, axis), lambda x: jnp.roll(x, 1, axis),
            lambda x: jnp.swapaxes(x, 0, -1), lambda x: x.reshape(x.shape[0], -1), lambda x: jnp.repeat(x, 2, axis),
            lambda x: jnp.tile(x, (2,) + (1,) * (rank - 1)), lambda x: jnp.broadcast_to(x, (2, *x.shape)),
        ]  # fmt: skip
        options += [lambda x: jnp.take(x, jnp.array([0, -1]), axis)]
    if rank >= 2:
        options += [jnp.tril, lambda x: jnp.triu(x, 1), jnp.diagonal, lambda x: x.reshape(-1, x.shape[-1])]
    return s.add(s.choice(options), place)


def cut(s: Scope) -> int:
    """A part of a value, or a padded value."""
    place = s.pick(rank=1)
    axis = s.number(0, s.values[place].rank - 1)
    before = (slice(None),) * axis
    low, high, gap = s.number(-1, 2), s.number(-1, 2), s.number(0, 2)
    rank = s.values[place].rank
    function = s.choice([
        lambda x: x[(*before, slice(1, None))], lambda x: x[(*before, slice(None, None, 2))],
        lambda x: x[(*before, slice(None, None, -1))], lambda x: x[(*before, 0)], lambda x: x[(*before, -1)],
        lambda x: lax.pad(
            x, jnp.zeros((), x.dtype), [(low, high, gap) if a == axis else (0, 0, 0) for a in range(rank)]
        ),
        lambda x: jnp.diff(x, axis=axis), lambda x: jnp.pad(x, 1, mode="edge"),
        lambda x: jnp.concatenate([x[(*before, slice(0, 1))], x * 0.5], axis),
    ])  # fmt: skip
    return s.add(function, place)


def join(s: Scope) -> int:
    """Two values as one."""
    first = s.pick(rank=1)
    shape = s.values[first].shape
    second = s.pick(where=lambda v: v.shape == shape)
    axis = s.number(0, len(shape) - 1)
    function = s.choice([jnp.concatenate, jnp.stack])
    return s.add(lambda x, y: function([x, y], axis), first, second)


def gather(s: Scope) -> int:
    """Elements or rows at computed indices."""
    table, places = s.pick(rank=1), s.pick("int")
    axis = s.number(0, s.values[table].rank - 1)
    mode = s.choice(["clip", "fill", "wrap", "promise_in_bounds"])

    def take(x: jax.Array, i: jax.Array) -> jax.Array:
        inside = i % x.shape[axis] if mode == "promise_in_bounds" else i
        return jnp.take(x, inside, axis, mode=mode, **({"fill_value": 0.3} if mode == "fill" else {}))

    along = s.chance(0.3)
    return s.add((lambda x, i: jnp.take_along_axis(x, jnp.argsort(x, axis), axis)) if along else take, table, places)


def pick_out(s: Scope) -> int:
    """A row or a slice at a computed index, or rows by products with ones and zeros."""
    table, places = s.pick(rank=1), s.pick("int")
    axis = s.number(0, s.values[table].rank - 1)
    function = s.choice([
        lambda x, i: lax.dynamic_index_in_dim(x, i.reshape(-1)[0], axis),
        lambda x, i: lax.dynamic_slice_in_dim(x, i.reshape(-1)[0], max(x.shape[axis] - 1, 1), axis),
        lambda x, i: jax.nn.one_hot(i, x.shape[0], dtype=x.dtype) @ x,
    ])  # fmt: skip
    return s.add(function, table, places)


def scatter(s: Scope) -> int:
    """Values written, added, multiplied or compared into computed places."""
    table, places = s.pick(rank=1), s.pick("int", where=lambda v: v.size <= 12)
    rows = s.number(1, 5)
    mode = s.choice(["clip", "drop", "promise_in_bounds"])
    way = s.choice(["add", "max", "min"])

    def put(x: jax.Array, i: jax.Array) -> jax.Array:
        inside = i % x.shape[0] if mode == "promise_in_bounds" else i
        update = jnp.cos(jnp.mean(x, 0)) * jnp.ones((*i.shape, *x.shape[1:]), x.dtype)
        if way == "add":
            return x.at[inside].add(update, mode=mode)
        return lax.stop_gradient(getattr(x.at[inside], way)(update, mode=mode))

    def put_apart(x: jax.Array, i: jax.Array) -> jax.Array:
        order = jnp.argsort(jnp.sum(x.reshape(x.shape[0], -1), 1))
        return x.at[order].set(jnp.sin(x), unique_indices=True) + 0 * i.reshape(-1)[0]

    function = s.choice([
        put, put, put_apart,
        lambda x, i: jax.ops.segment_sum(jnp.ones(i.size, x.dtype), i.reshape(-1), rows) * x.mean(),
        lambda x, i: lax.dynamic_update_slice_in_dim(x, jnp.sin(x[:1]), i.reshape(-1)[0], 0),
        lambda x, i: lax.dynamic_update_index_in_dim(x, jnp.cos(x[0]), i.reshape(-1)[0], 0),
        lambda x, i: x.at[..., i.reshape(-1)[0]].multiply(0.5), lambda x, i: x.at[::2].set(0.1),
    ])  # fmt: skip
    return tame(s, s.add(function, table, places))


def product(s: Scope) -> int:
    """Matrix products, with new weights if no value fits."""
    place = s.pick(rank=1)
    value = s.values[place]
    width = value.shape[-1]
    options = [
        lambda x: x @ jnp.cos(jnp.arange(width * 3, dtype=x.dtype)).reshape(width, 3),
        lambda x: jnp.outer(x, x[..., 0]),
        lambda x: jnp.einsum("...i,...i->...", x, jnp.sin(x)), lambda x: jnp.tensordot(x, jnp.cos(x), (-1, -1)),
        lambda x: (x > 0).astype(x.dtype) @ jnp.sin(jnp.arange(width, dtype=x.dtype)),
    ]  # fmt: skip
    if value.rank >= 2:
        options += [lambda x: x @ jnp.swapaxes(jnp.tanh(x), -1, -2), lambda x: jnp.einsum("...ij,...ik->...jk", x, x)]
    if s.chance(0.5):
        other = s.pick(rank=1, where=lambda v: v.shape[0] == width and v.rank <= 2)
        return tame(s, s.add(jnp.matmul, place, other))
    return tame(s, s.add(s.choice(options), place))


def convolution(s: Scope) -> int:
    """A convolution of a value seen as lines or images, by constants or by another value."""
    place, weights = s.pick(rank=2), s.pick()
    rank = s.values[place].rank
    stride, dilation, size = s.number(1, 2), s.number(1, 2), s.number(1, 3)
    padding, fixed = s.choice(["SAME", "VALID"]), s.chance(0.3)
    layout = ("NHWC", "HWIO", "NHWC") if rank == 4 else ("NWC", "WIO", "NWC")
    spatial = len(layout[0]) - 2

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        x = x if rank >= 3 else x[None]
        shape = (*(size,) * spatial, x.shape[-1], 2)
        return lax.conv_general_dilated(
            x, jnp.resize(jnp.cos(jnp.arange(7, dtype=x.dtype)) if fixed else kernel, shape), (stride,) * spatial,
            padding, rhs_dilation=(dilation,) * spatial, dimension_numbers=layout,
        )  # fmt: skip

    return tame(s, s.add(convolve, place, weights))


def pool(s: Scope) -> int:
    """A pool over a value seen as lines or images."""
    place = s.pick(rank=2)
    rank = s.values[place].rank
    stride, size = s.number(1, 2), s.number(1, 3)
    operation, start = s.choice([(lax.max, -jnp.inf), (lax.add, 0.0), (lax.min, jnp.inf)])

    def pooled(x: jax.Array) -> jax.Array:
        x = x if rank >= 3 else x[None]
        window, strides = ((1, *(each,) * (x.ndim - 2), 1) for each in (size, stride))
        return lax.reduce_window(x, start, operation, window, strides, "VALID")

    return tame(s, s.add(pooled, place))


def draw(s: Scope) -> int:
    """Random numbers, from a key that the program computes."""
    like, seed = s.pick(), s.pick("int")
    shape = s.values[like].shape if s.values[like].steady else (3,)
    function = s.choice([
        lambda key: jax.random.normal(key, shape, jnp.float32), lambda key: jax.random.uniform(key, shape, jnp.float32),
        lambda key: jax.random.bernoulli(key, 0.6, shape).astype(jnp.float32),
        lambda key: jax.random.randint(key, shape, -3, 9, jnp.int32).astype(jnp.float32) * 0.1,
        lambda key: jax.random.permutation(key, 7)[:3].astype(jnp.float32) * 0.2,
    ])  # fmt: skip

    def drawn(x: jax.Array, i: jax.Array) -> jax.Array:
        key = jax.random.key(i.reshape(-1)[0])
        noise = function(key).astype(x.dtype)
        return x * (1 + noise) if noise.shape == x.shape else jnp.mean(x) * noise

    return tame(s, s.add(drawn, like, seed))


WORDS = {
    unary: 10, binary: 12, where: 4, compare: 4, logic: 2, integers: 3, convert: 5, bits: 1, reduction: 7, normalise: 3,
    counted: 3, cumulative: 4, sort: 5, reshape: 8, cut: 5, join: 4, gather: 5, pick_out: 3, scatter: 5, product: 7,
    convolution: 2, pool: 2, draw: 1,
}  # fmt: skip
"""The words, each with its weight."""
