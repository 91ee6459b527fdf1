"""Twenty kinds of models, small, as their fields write them; those of images and of bytes share a batch.

Deep equilibrium, inner loops, remat and second derivatives are in tests/agreement/test_control.py, convolutions and
pools of every sort in test_windows.py there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from agreement.case import Case
from agreement.rows import row

_BATCH = {"x": (4, 8, 8), "t": jax.ShapeDtypeStruct((4, 6), jnp.int32)}


def _model(output, params):
    return row(lambda p, b: output({name: 0.4 * value for name, value in p.items()}, b), params, batch=_BATCH)


def norm(x, axes=-1):
    """The numbers less their mean, over their standard deviation, along the axes."""
    mean = jnp.mean(x, axes, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.var(x, axes, keepdims=True) + 1e-3)


def _attended(p, x, mask=None):
    """Self-attention of two heads, and a perceptron, each added to its input."""
    q, k, v = (norm(x) @ p[name] for name in ("q", "k", "v"))
    q, k, v = (y.reshape(*y.shape[:2], 2, -1) for y in (q, k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    scores = scores if mask is None else jnp.where(mask, scores, -1e9)
    x = x + jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(x.shape)
    return x + jax.nn.gelu(norm(x) @ p["up"]) @ p["down"]


_BLOCK = {"q": (4, 4), "k": (4, 4), "v": (4, 4), "up": (4, 8), "down": (8, 4)}


def _gpt(p, b):
    x = _attended(p, p["bytes"][b["t"]] + p["places"], jnp.tril(jnp.ones((6, 6), bool)))
    scores = norm(x[:, :-1]) @ p["bytes"].T
    return optax.softmax_cross_entropy_with_integer_labels(scores, b["t"][:, 1:])


def _vit(p, b):
    patches = b["x"].reshape(-1, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 16)
    x = patches @ p["patch"] + p["places"][1:]
    first = jnp.broadcast_to(p["places"][:1], (x.shape[0], 1, 4))
    return _attended(p, jnp.concatenate([first, x], 1))[:, 0] @ p["head"]


def _conv(x, kernel, strides=1):
    return lax.conv_general_dilated(x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _resnet(p, b):
    x = jax.nn.relu(norm(_conv(b["x"][..., None], p["stem"]), (1, 2)))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    y = _conv(jax.nn.relu(norm(_conv(x, p["first"], 2), (1, 2))), p["second"])
    return jax.nn.relu(y + _conv(x, p["across"], 2)).mean((1, 2)) @ p["head"]


def _unet(p, b):
    first = jax.nn.silu(_conv(b["x"][..., None], p["first"]))
    deep = jax.nn.silu(_conv(first, p["down"], 2))
    up = jnp.repeat(jnp.repeat(deep, 2, 1), 2, 2)
    return _conv(jnp.concatenate([first, up], -1), p["last"])


_EDGES = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 4], [1, 2, 3, 4, 5, 6, 7, 0, 4, 6, 1]])


def _graph_network(p, b):
    """Two rounds of messages along edges, added up at the nodes."""

    def of_graph(nodes):
        for message, update in (("m1", "u1"), ("m2", "u2")):
            sent = jax.nn.relu(jnp.concatenate([nodes[_EDGES[0]], nodes[_EDGES[1]]], -1) @ p[message])
            nodes = jnp.tanh(nodes @ p[update] + jax.ops.segment_sum(sent, _EDGES[1], 8))
        return nodes.mean(0)

    return jax.vmap(of_graph)(b["x"][..., :4])


def _physics_informed(p, b):
    """The residual of u'' + u = 0 at points, and the boundary."""

    def u(t):
        return jnp.tanh(jnp.tanh(t * p["a"] + p["c"]) @ p["w"]) @ p["v"]

    points = b["x"][:, 0, :4].reshape(-1)
    return jax.vmap(jax.grad(jax.grad(u)))(points) + jax.vmap(u)(points) + u(0.0) - 1


def _neural_ode(p, b):
    """Four Runge-Kutta steps of a learnt field."""

    def field(y):
        return jnp.tanh(y @ p["w"] + p["c"]) @ p["v"]

    def step(y, _):
        k1 = field(y)
        k2 = field(y + 0.1 * k1)
        k3 = field(y + 0.1 * k2)
        k4 = field(y + 0.2 * k3)
        return y + 0.2 / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return lax.scan(step, b["x"][:, 0, :4], None, length=4)[0]


def _recommender(p, b):
    """Hashed identifiers, embedded and multiplied, with a wide part beside."""
    users, items = (b["t"][:, 0] * 7919 + 13) % 1000, (b["t"][:, 1] * 104729 + 7) % 1000
    pair = p["embedding"][users] * p["embedding"][items]
    return jnp.tanh(pair @ p["deep"]).sum(-1) + p["wide"][users] + p["wide"][items]


def _low_rank(p, b):
    """A frozen layer with a trained one of rank 2 beside it."""
    x = b["x"][:, 0]
    return jnp.tanh(x @ lax.stop_gradient(p["base"]) + x @ p["a"] @ p["b"])


def _flow(p, b):
    """Two coupling layers with a permutation between, and the logarithm of the determinant."""
    x, determinant = b["x"][:, 0], 0.0
    for scale, shift in (("s1", "t1"), ("s2", "t2")):
        x = x[:, np.array([4, 2, 7, 0, 5, 1, 3, 6])]
        fixed, moved = x[:, :4], x[:, 4:]
        log_scale = jnp.tanh(fixed @ p[scale])
        x = jnp.concatenate([fixed, moved * jnp.exp(log_scale) + fixed @ p[shift]], -1)
        determinant += log_scale.sum(-1)
    return 0.1 * (x**2).sum(-1) - determinant


def _wavenet(p, b):
    """Gated causal convolutions, dilated by one and by two, with skips."""
    x, skips = b["x"], 0.0
    for dilation, filtered, gate in ((1, "f1", "g1"), (2, "f2", "g2")):
        wave, open_ = (
            lax.conv_general_dilated(
                x, p[name], (1,), ((dilation, 0),), rhs_dilation=(dilation,), dimension_numbers=("NWC", "WIO", "NWC")
            )
            for name in (filtered, gate)
        )
        y = jnp.tanh(wave) * jax.nn.sigmoid(open_)
        x, skips = x + y, skips + y
    return skips @ p["head"]


def _mixer(p, b):
    x = b["x"] + jax.nn.gelu(norm(b["x"]).transpose(0, 2, 1) @ p["tokens"]).transpose(0, 2, 1)
    return (x + jax.nn.gelu(norm(x) @ p["channels"])).mean(1) @ p["head"]


def _gru(p, b):
    def cell(h, x):
        z, r = jnp.split(jax.nn.sigmoid(x @ p["wx"] + h @ p["wh"]), 2, -1)
        new = (1 - z) * h + z * jnp.tanh(x @ p["cx"] + (r * h) @ p["ch"])
        return new, new

    return lax.scan(cell, jnp.zeros((b["x"].shape[0], 3)), jnp.swapaxes(b["x"], 0, 1))[1]


def lstm(p, b, reverse=False):
    """The outputs of a long short-term memory of three numbers, from the first place on or from the last."""

    def cell(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(x @ p["wx"] + h @ p["wh"], 4, -1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((b["x"].shape[0], 3))
    return lax.scan(cell, (zero, zero), jnp.swapaxes(b["x"], 0, 1), reverse=reverse)[1]


def _experts(p, b):
    """A mixture of experts: the best two for each example, weighted by their scores."""
    scores, chosen = lax.top_k(jax.nn.softmax(b["x"] @ p["w"]), 2)
    outputs = jnp.einsum("ni,eij->nej", b["x"], p["e"])
    return jnp.einsum("nk,nkj->nj", scores, jnp.take_along_axis(outputs, chosen[..., None], 1))


def _state_space(p, b):
    """A linear recurrence by an associative scan."""
    return lax.associative_scan(
        lambda a, c: (a[0] * c[0], c[0] * a[1] + c[1]),
        (jnp.broadcast_to(jax.nn.sigmoid(p["a"]), b["x"].shape), b["x"]),
        axis=1,
    )[1]


def _hidden(p, b):
    return b["x"] @ p["w"] + p["b"]


def _contrastive(p, b):
    """Each example against all others of the batch."""
    y = norm(_hidden(p, b))
    return -jax.nn.log_softmax(y @ y.T - 9 * jnp.eye(b["x"].shape[0]))


def _variational(p, b):
    """A sample by the reparameterisation, with a key of the batch."""
    mean = b["x"] @ p["w"]
    key = jax.random.key(b["i"][1 % b["i"].shape[0]])
    return mean + jnp.exp(0.1 * mean @ p["u"]) * jax.random.normal(key, mean.shape)


def _mixture_density(p, b):
    distance = (b["x"][:, :1] - _hidden(p, b)) ** 2
    return -jax.nn.logsumexp(jax.nn.log_softmax(p["b"]) - distance - jnp.log(1 + p["u"][0] ** 2), -1)


def _two_towers(p, b):
    # Saturated functions would leave gradients of rounding alone, of which Adam makes whole steps.
    x = b["x"] * 200**-0.5
    return jax.nn.gelu(x[:, :200] @ p["a"]) * (x[:, 200:] @ p["c"])


_WEIGHTS = {"w": (5, 4), "u": (4, 4), "b": (4,)}
_SEQUENCE = {"x": (3, 6, 4)}

KINDS: dict[str, Case] = {
    "GPT": _model(_gpt, {"bytes": (5, 4), "places": (6, 4), **_BLOCK}),
    "ViT": _model(_vit, {"patch": (16, 4), "places": (5, 4), "head": (4, 3), **_BLOCK}),
    "ResNet": _model(
        _resnet,
        {"stem": (3, 3, 1, 2), "first": (3, 3, 2, 4), "second": (3, 3, 4, 4), "across": (1, 1, 2, 4), "head": (4, 3)},
    ),
    "U-Net": _model(_unet, {"first": (3, 3, 1, 2), "down": (3, 3, 2, 4), "last": (3, 3, 6, 1)}),
    "graph network": _model(_graph_network, {"m1": (8, 4), "u1": (4, 4), "m2": (8, 4), "u2": (4, 4)}),
    "physics-informed": _model(_physics_informed, {"a": (4,), "c": (4,), "w": (4, 4), "v": (4,)}),
    "neural ODE": _model(_neural_ode, {"w": (4, 6), "c": (6,), "v": (6, 4)}),
    "recommender": _model(_recommender, {"embedding": (1000, 4), "deep": (4, 3), "wide": (1000,)}),
    "low-rank adapter": _model(_low_rank, {"base": (8, 4), "a": (8, 2), "b": (2, 4)}),
    "flow of couplings": _model(_flow, {"s1": (4, 4), "t1": (4, 4), "s2": (4, 4), "t2": (4, 4)}),
    "WaveNet": _model(_wavenet, {"f1": (2, 8, 8), "g1": (2, 8, 8), "f2": (2, 8, 8), "g2": (2, 8, 8), "head": (8, 2)}),
    "mixer": _model(_mixer, {"tokens": (8, 8), "channels": (8, 8), "head": (8, 3)}),
    "GRU": row(_gru, {"wx": (4, 6), "wh": (3, 6), "cx": (4, 3), "ch": (3, 3)}, batch=_SEQUENCE),
    "LSTM": row(lstm, {"wx": (4, 12), "wh": (3, 12)}, batch=_SEQUENCE),
    "state space": row(_state_space, {"a": (4,)}, batch=_SEQUENCE),
    "mixture of experts": row(_experts, {"w": (5, 3), "e": (3, 5, 4)}),
    "contrastive": row(_contrastive, _WEIGHTS),
    "variational": row(_variational, _WEIGHTS),
    "mixture density": row(_mixture_density, _WEIGHTS),
    "two towers": row(_two_towers, {"a": (200, 16), "c": (200, 16)}, batch={"x": (4, 400)}),
}
"""The kinds by name; `by_optimizers` trains each by several optimizers."""
