"""Whole models of their kinds, small, over twenty steps with three optimizers.

Eight more kinds are in test_layers.py. Deep equilibrium, inner loops, remat and second derivatives are in
test_control.py, convolutions and pools of every sort in test_windows.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from agreement.case import Case
from agreement.rows import Table, by_optimizers, row
from jax import lax

BATCH = {"x": (4, 8, 8), "t": jax.ShapeDtypeStruct((4, 6), jnp.int32)}


def model(output, params):
    return row(lambda p, b: output({name: 0.4 * value for name, value in p.items()}, b), params, batch=BATCH)


def norm(x, axes=-1):
    mean = jnp.mean(x, axes, keepdims=True)
    return (x - mean) * lax.rsqrt(jnp.var(x, axes, keepdims=True) + 1e-3)


def attended(p, x, mask=None):
    """Self-attention of two heads, and a perceptron, each added to its input."""
    q, k, v = (norm(x) @ p[name] for name in ("q", "k", "v"))
    q, k, v = (y.reshape(*y.shape[:2], 2, -1) for y in (q, k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    scores = scores if mask is None else jnp.where(mask, scores, -1e9)
    x = x + jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v).reshape(x.shape)
    return x + jax.nn.gelu(norm(x) @ p["up"]) @ p["down"]


BLOCK = {"q": (4, 4), "k": (4, 4), "v": (4, 4), "up": (4, 8), "down": (8, 4)}


def gpt(p, b):
    x = attended(p, p["bytes"][b["t"]] + p["places"], jnp.tril(jnp.ones((6, 6), bool)))
    scores = norm(x[:, :-1]) @ p["bytes"].T
    return optax.softmax_cross_entropy_with_integer_labels(scores, b["t"][:, 1:])


def vit(p, b):
    patches = b["x"].reshape(-1, 2, 4, 2, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 16)
    x = patches @ p["patch"] + p["places"][1:]
    first = jnp.broadcast_to(p["places"][:1], (x.shape[0], 1, 4))
    return attended(p, jnp.concatenate([first, x], 1))[:, 0] @ p["head"]


def conv(x, kernel, strides=1):
    return lax.conv_general_dilated(x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def resnet(p, b):
    x = jax.nn.relu(norm(conv(b["x"][..., None], p["stem"]), (1, 2)))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
    y = conv(jax.nn.relu(norm(conv(x, p["first"], 2), (1, 2))), p["second"])
    return jax.nn.relu(y + conv(x, p["across"], 2)).mean((1, 2)) @ p["head"]


def unet(p, b):
    first = jax.nn.silu(conv(b["x"][..., None], p["first"]))
    deep = jax.nn.silu(conv(first, p["down"], 2))
    up = jnp.repeat(jnp.repeat(deep, 2, 1), 2, 2)
    return conv(jnp.concatenate([first, up], -1), p["last"])


EDGES = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 4], [1, 2, 3, 4, 5, 6, 7, 0, 4, 6, 1]])


def graph_network(p, b):
    """Two rounds of messages along edges, added up at the nodes."""

    def of_graph(nodes):
        for message, update in (("m1", "u1"), ("m2", "u2")):
            sent = jax.nn.relu(jnp.concatenate([nodes[EDGES[0]], nodes[EDGES[1]]], -1) @ p[message])
            nodes = jnp.tanh(nodes @ p[update] + jax.ops.segment_sum(sent, EDGES[1], 8))
        return nodes.mean(0)

    return jax.vmap(of_graph)(b["x"][..., :4])


def physics_informed(p, b):
    """The residual of u'' + u = 0 at points, and the boundary."""

    def u(t):
        return jnp.tanh(jnp.tanh(t * p["a"] + p["c"]) @ p["w"]) @ p["v"]

    points = b["x"][:, 0, :4].reshape(-1)
    return jax.vmap(jax.grad(jax.grad(u)))(points) + jax.vmap(u)(points) + u(0.0) - 1


def neural_ode(p, b):
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


def recommender(p, b):
    """Hashed identifiers, embedded and multiplied, with a wide part beside."""
    users, items = (b["t"][:, 0] * 7919 + 13) % 1000, (b["t"][:, 1] * 104729 + 7) % 1000
    pair = p["embedding"][users] * p["embedding"][items]
    return jnp.tanh(pair @ p["deep"]).sum(-1) + p["wide"][users] + p["wide"][items]


def low_rank(p, b):
    """A frozen layer with a trained one of rank 2 beside it."""
    x = b["x"][:, 0]
    return jnp.tanh(x @ lax.stop_gradient(p["base"]) + x @ p["a"] @ p["b"])


def flow(p, b):
    """Two coupling layers with a permutation between, and the logarithm of the determinant."""
    x, determinant = b["x"][:, 0], 0.0
    for scale, shift in (("s1", "t1"), ("s2", "t2")):
        x = x[:, np.array([4, 2, 7, 0, 5, 1, 3, 6])]
        fixed, moved = x[:, :4], x[:, 4:]
        log_scale = jnp.tanh(fixed @ p[scale])
        x = jnp.concatenate([fixed, moved * jnp.exp(log_scale) + fixed @ p[shift]], -1)
        determinant += log_scale.sum(-1)
    return 0.1 * (x**2).sum(-1) - determinant


def wavenet(p, b):
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


def mixer(p, b):
    x = b["x"] + jax.nn.gelu(norm(b["x"]).transpose(0, 2, 1) @ p["tokens"]).transpose(0, 2, 1)
    return (x + jax.nn.gelu(norm(x) @ p["channels"])).mean(1) @ p["head"]


MODELS: dict[str, Case] = {
    "GPT": model(gpt, {"bytes": (5, 4), "places": (6, 4), **BLOCK}),
    "ViT": model(vit, {"patch": (16, 4), "places": (5, 4), "head": (4, 3), **BLOCK}),
    "ResNet": model(
        resnet,
        {"stem": (3, 3, 1, 2), "first": (3, 3, 2, 4), "second": (3, 3, 4, 4), "across": (1, 1, 2, 4), "head": (4, 3)},
    ),
    "U-Net": model(unet, {"first": (3, 3, 1, 2), "down": (3, 3, 2, 4), "last": (3, 3, 6, 1)}),
    "graph network": model(graph_network, {"m1": (8, 4), "u1": (4, 4), "m2": (8, 4), "u2": (4, 4)}),
    "physics-informed": model(physics_informed, {"a": (4,), "c": (4,), "w": (4, 4), "v": (4,)}),
    "neural ODE": model(neural_ode, {"w": (4, 6), "c": (6,), "v": (6, 4)}),
    "recommender": model(recommender, {"embedding": (1000, 4), "deep": (4, 3), "wide": (1000,)}),
    "low-rank adapter": model(low_rank, {"base": (8, 4), "a": (8, 2), "b": (2, 4)}),
    "flow of couplings": model(flow, {"s1": (4, 4), "t1": (4, 4), "s2": (4, 4), "t2": (4, 4)}),
    "WaveNet": model(wavenet, {"f1": (2, 8, 8), "g1": (2, 8, 8), "f2": (2, 8, 8), "g2": (2, 8, 8), "head": (8, 2)}),
    "mixer": model(mixer, {"tokens": (8, 8), "channels": (8, 8), "head": (8, 3)}),
}

RUNS = by_optimizers(MODELS)

# All in one module would give a dispatch more bindings than IREE has.
TABLE = Table(RUNS, group=3, rate=1e-3, chained=20, evaluates=False)


@pytest.mark.parametrize("name", RUNS)
def test_it_trains_as_in_jax(name: str) -> None:
    assert not TABLE.disagreements(name)
