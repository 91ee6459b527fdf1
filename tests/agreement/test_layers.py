"""Layers and losses as people write them, and functions of one number, one by one, over ten steps."""

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
import optax
import pytest
from agreement.case import Case
from agreement.kinds import KINDS, lstm, norm
from agreement.rows import Table, row
from jax import lax

W = {"w": (5, 4), "u": (4, 4), "b": (4,)}
X = {"x": (6, 5)}


def hidden(p, b):
    return b["x"] @ p["w"] + p["b"]


def number(function):
    """A function of each number, on numbers between -1.5 and 1.5."""
    return row(lambda p, b: function(1.5 * jnp.tanh(p["v"])), {"v": (6, 5)})


def positive(function):
    return row(lambda p, b: function(jnp.exp(p["v"]) + 0.1), {"v": (6, 5)})


NUMBERS: dict[str, Case] = {
    **{
        f.__name__: number(f)
        for f in (
            jnp.exp2,
            jnp.expm1,
            jnp.sinh,
            jnp.cosh,
            jnp.arcsinh,
            jnp.arctan,
            jnp.cbrt,
            jnp.square,
            jnp.sinc,
            jnp.sign,
            jnp.floor,
            jnp.ceil,
            jnp.round,
            jnp.trunc,
            jnp.nan_to_num,
            jnp.i0,
            jnp.tan,
            special.erf,
            special.erfc,
            special.i0e,
            special.i1e,
            special.expit,
            special.log_ndtr,
        )
    },
    **{
        f.__name__: positive(f)
        for f in (
            jnp.log,
            jnp.log2,
            jnp.log10,
            jnp.log1p,
            jnp.sqrt,
            jnp.reciprocal,
            special.gammaln,
            special.digamma,
            special.entr,
            lax.rsqrt,
        )
    },
    "erf_inv": row(lambda p, b: special.erfinv(0.9 * jnp.tanh(p["v"])), {"v": (6, 5)}),
    "arcsin, arccos, arctanh": row(
        lambda p, b: sum(f(0.9 * jnp.tanh(p["v"])) for f in (jnp.arcsin, jnp.arccos, jnp.arctanh)), {"v": (6, 5)}
    ),
    "arctan2": row(lambda p, b: jnp.arctan2(p["v"], p["v"][::-1] + 0.3), {"v": (6, 5)}),
    "power": row(lambda p, b: jnp.power(jnp.abs(p["v"]) + 0.2, jnp.tanh(p["v"][::-1])), {"v": (6, 5)}),
    "power of integers": row(lambda p, b: p["v"] ** 3 + p["v"] ** -2, {"v": (6, 5)}),
    "remainder": row(lambda p, b: jnp.remainder(p["v"], 0.7) + jnp.fmod(p["v"], 0.9), {"v": (6, 5)}),
    "floor_divide": row(lambda p, b: (p["v"] // 0.4) * p["v"], {"v": (6, 5)}),
    "logaddexp": row(lambda p, b: jnp.logaddexp(p["v"], p["v"][::-1]), {"v": (6, 5)}),
    "hypot": row(lambda p, b: jnp.hypot(p["v"], p["v"][::-1]), {"v": (6, 5)}),
    "gammainc": row(lambda p, b: special.gammainc(2.5, jnp.exp(p["v"])), {"v": (3, 2)}),
    "betainc": row(lambda p, b: special.betainc(1.5, 2.0, jax.nn.sigmoid(p["v"])), {"v": (3, 2)}),
    "polygamma": row(lambda p, b: special.polygamma(1, jnp.exp(p["v"]) + 0.5), {"v": (3, 2)}),
    "isfinite": row(lambda p, b: jnp.isfinite(1 / jnp.round(p["v"])) * p["v"], {"v": (6, 5)}),
    "reduce_precision": row(lambda p, b: lax.reduce_precision(p["v"], 8, 7), {"v": (6, 5)}),
    "bitcast there and back": row(
        lambda p, b: p["v"] * lax.bitcast_convert_type(lax.bitcast_convert_type(p["v"], jnp.int32), jnp.float32),
        {"v": (6, 5)},
    ),
    "bits of numbers": row(
        lambda p, b: (
            p["v"]
            * lax.bitcast_convert_type(lax.bitcast_convert_type(p["v"], jnp.int32) & jnp.int32(0x7FFFFF00), jnp.float32)
        ),
        {"v": (6, 5)},
    ),
    "bits in bytes": row(
        lambda p, b: p["v"] * lax.bitcast_convert_type(p["v"], jnp.uint8).astype(jnp.float32).mean(-1), {"v": (6, 5)}
    ),
    "integers": row(
        lambda p, b: (
            p["v"] * ((b["i"] * 37 // 5 % 11 << 2) ^ lax.population_count(b["i"]) - lax.clz(b["i"] + 1))[:, None]
        ),
        {"v": (6, 5)},
    ),
    "unsigned integers": row(
        lambda p, b: p["v"] * ((b["i"].astype(jnp.uint32) * jnp.uint32(2654435761)) >> 28)[:, None].astype(jnp.float32),
        {"v": (6, 5)},
    ),
    "16 bits in float32": row(
        lambda p, b: (p["v"].astype(jnp.bfloat16) + p["v"][::-1].astype(jnp.float16).astype(jnp.bfloat16)).astype(
            jnp.float32
        ),
        {"v": (6, 5)},
    ),
    "bytes in a product": row(
        lambda p, b: b["x"].astype(jnp.float32) @ p["w"] / 99,
        {"w": (5, 4)},
        batch={"x": jax.ShapeDtypeStruct((6, 5), jnp.uint8)},
    ),
    "booleans in a product": row(lambda p, b: (b["x"] > 0).astype(jnp.float32) @ p["w"], {"w": (5, 4)}),
}


def attention(p, x, mask=None):
    q, k, v = (x @ p[name] for name in "qkv")
    scores = q @ jnp.swapaxes(k, -1, -2) / 2
    if mask is not None:
        scores = jnp.where(mask, scores, -1e9)
    return jax.nn.softmax(scores, -1) @ v


def rotary(x):
    angles = jnp.arange(x.shape[-2])[:, None] / 10.0 ** jnp.arange(2)
    a, c = x[..., ::2], x[..., 1::2]
    return jnp.stack(
        [a * jnp.cos(angles) - c * jnp.sin(angles), a * jnp.sin(angles) + c * jnp.cos(angles)], -1
    ).reshape(x.shape)


SEQUENCE = {"x": (3, 6, 4)}
QKV = {"q": (4, 4), "k": (4, 4), "v": (4, 4)}
LABELS = {"x": (6, 5), "i": jax.ShapeDtypeStruct((6,), jnp.int32)}

LAYERS: dict[str, Case] = {
    **{
        name: KINDS[name]
        for name in (
            *("GRU", "LSTM", "state space", "mixture of experts"),
            *("contrastive", "variational", "mixture density", "two towers"),
        )
    },
    **{
        f.__name__: row(lambda p, b, f=f: f(hidden(p, b)), W)
        for f in (
            jax.nn.relu,
            jax.nn.relu6,
            jax.nn.gelu,
            jax.nn.silu,
            jax.nn.elu,
            jax.nn.selu,
            jax.nn.celu,
            jax.nn.softplus,
            jax.nn.mish,
            jax.nn.glu,
            jax.nn.hard_tanh,
            jax.nn.log_softmax,
            jax.nn.standardize,
            jax.nn.squareplus,
        )
    },
    "gelu, exact": row(lambda p, b: jax.nn.gelu(hidden(p, b), approximate=False), W),
    "leaky relu, trained": row(lambda p, b: jnp.where(hidden(p, b) > 0, hidden(p, b), p["b"] * hidden(p, b)), W),
    "layer norm": row(lambda p, b: norm(hidden(p, b), -1) * p["b"], W),
    "batch norm": row(lambda p, b: norm(hidden(p, b), 0) * p["b"], W),
    "group norm": row(lambda p, b: norm(hidden(p, b).reshape(-1, 2, 2), -1).reshape(-1, 4) * p["b"], W),
    "rms norm": row(
        lambda p, b: (y := hidden(p, b)) * lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-3) * p["b"], W
    ),
    "weight norm": row(lambda p, b: b["x"] @ (p["w"] / jnp.linalg.norm(p["w"], axis=0)) * p["b"], W),
    "spectral norm": row(
        lambda p, b: b["x"] @ p["w"] / jnp.sqrt(jnp.sum((p["u"] @ jax.nn.softmax(p["b"])) ** 2) + 1), W
    ),
    "dropout": row(
        lambda p, b: jnp.where(jax.random.bernoulli(jax.random.key(3), 0.7, hidden(p, b).shape), hidden(p, b), 0), W
    ),
    "dropout, a key of the batch": row(
        lambda p, b: jnp.where(
            jax.random.bernoulli(jax.random.key(b["i"][0]), 0.7, hidden(p, b).shape), hidden(p, b), 0
        ),
        W,
    ),
    "noise": row(lambda p, b: hidden(p, b) + 0.1 * jax.random.normal(jax.random.key(b["i"][0]), p["b"].shape), W),
    "attention": row(lambda p, b: attention(p, b["x"]), QKV, batch=SEQUENCE),
    "attention, causal": row(
        lambda p, b: attention(p, rotary(b["x"]), jnp.tril(jnp.ones((6, 6), bool))), QKV, batch=SEQUENCE
    ),
    "attention, heads": row(
        lambda p, b: jnp.einsum(
            "bhst,bthd->bshd",
            jax.nn.softmax(jnp.einsum("bshd,bthd->bhst", *((b["x"] @ p[n]).reshape(-1, 6, 2, 2) for n in "qk"))),
            (b["x"] @ p["v"]).reshape(-1, 6, 2, 2),
        ),
        QKV,
        batch=SEQUENCE,
    ),
    "dot_product_attention": row(
        lambda p, b: jax.nn.dot_product_attention(
            *((b["x"] @ p[n]).reshape(-1, 6, 2, 2) for n in "qkv"), is_causal=True
        ),
        QKV,
        batch=SEQUENCE,
    ),
    "LSTM, reverse": row(lambda p, b: lstm(p, b, reverse=True), {"wx": (4, 12), "wh": (3, 12)}, batch=SEQUENCE),
    "cross entropy": row(
        lambda p, b: optax.softmax_cross_entropy_with_integer_labels(b["x"] @ p["w"], b["i"]), {"w": (5, 5)}
    ),
    "cross entropy, smoothed": row(
        lambda p, b: optax.softmax_cross_entropy(b["x"] @ p["w"], optax.smooth_labels(jax.nn.one_hot(b["i"], 5), 0.1)),
        {"w": (5, 5)},
    ),
    "binary cross entropy": row(
        lambda p, b: optax.sigmoid_binary_cross_entropy(b["x"] @ p["w"], jax.nn.one_hot(b["i"], 5)), {"w": (5, 5)}
    ),
    "focal loss": row(
        lambda p, b: optax.sigmoid_focal_loss(b["x"] @ p["w"], jax.nn.one_hot(b["i"], 5), alpha=0.3), {"w": (5, 5)}
    ),
    "huber, cosine, log cosh": row(
        lambda p, b: (
            optax.huber_loss(hidden(p, b)).sum(-1)
            + optax.cosine_similarity(hidden(p, b), p["b"] + 0 * hidden(p, b), epsilon=1e-3)
            + optax.log_cosh(hidden(p, b)).sum(-1)
        ),
        W,
    ),
    "hinge, kl": row(
        lambda p, b: (
            optax.hinge_loss(hidden(p, b)[:, 0], jnp.where(b["i"] > 2, 1.0, -1.0))
            + optax.kl_divergence(jax.nn.log_softmax(hidden(p, b)), jax.nn.softmax(p["b"]))
        ),
        W,
    ),
    "triplets": row(
        lambda p, b: jax.nn.relu(
            jnp.sum((hidden(p, b) - hidden(p, b)[::-1]) ** 2, -1) - jnp.sum((hidden(p, b) - p["b"]) ** 2, -1) + 1
        ),
        W,
    ),
    "ctc": row(
        lambda p, b: optax.ctc_loss(
            b["x"] @ p["w"],
            jnp.zeros(b["x"].shape[:2]),
            jnp.tile(jnp.array([[1, 2]]), (b["x"].shape[0], 1)),
            jnp.zeros((b["x"].shape[0], 2)),
        ),
        {"w": (4, 3)},
        batch=SEQUENCE,
    ),
    "gram matrix": row(lambda p, b: (y := hidden(p, b)).T @ y / y.shape[0], W),
    "residual": row(lambda p, b: (y := hidden(p, b)) + jax.nn.relu(y @ p["u"]) @ p["u"].T, W),
    "constants of a table": row(
        lambda p, b: jnp.asarray(np.arange(20.0, dtype=np.float32).reshape(5, 4))[b["i"]] * p["b"], W
    ),
}

L = optax.losses


def one_hot(b):
    return jax.nn.one_hot(b["i"] % 4, 4)


LOSSES: dict[str, Case] = {
    **{
        f.__name__: number(f)
        for f in (
            jax.nn.hard_sigmoid,
            jax.nn.hard_silu,
            jax.nn.leaky_relu,
            jax.nn.log_sigmoid,
            jax.nn.soft_sign,
            jax.nn.sparse_plus,
            jax.nn.sparse_sigmoid,
        )
    },
    "log1mexp": positive(jax.nn.log1mexp),
    "logmeanexp": row(lambda p, b: jax.nn.logmeanexp(p["v"], axis=0), {"v": (6, 5)}),
    **{
        f.__name__: row(lambda p, b, f=f: f(hidden(p, b), one_hot(b)), W)
        for f in (L.dice_loss, L.poly_loss_cross_entropy, L.ranking_softmax_loss, L.safe_softmax_cross_entropy)
    },
    **{
        f.__name__: row(lambda p, b, f=f: f(hidden(p, b), b["i"] % 4), W)
        for f in (L.multiclass_hinge_loss, L.multiclass_perceptron_loss, L.multiclass_sparsemax_loss)
    },
    "generalized_kl_divergence": row(
        lambda p, b: L.generalized_kl_divergence(jax.nn.log_softmax(hidden(p, b)), jax.nn.softmax(p["b"])), W
    ),
    "cosine_distance": row(lambda p, b: L.cosine_distance(hidden(p, b), one_hot(b), epsilon=1e-3), W),
    "fenchel_young": row(
        lambda p, b: jax.vmap(L.make_fenchel_young_loss(jax.nn.logsumexp))(hidden(p, b), one_hot(b)), W
    ),
    "projections": row(
        lambda p, b: optax.projections.projection_simplex(p["b"]) + optax.projections.projection_l1_ball(p["b"], 1.0), W
    ),
}

TABLES = {
    "numbers": Table(NUMBERS),
    "layers": Table(LAYERS),
    "losses": Table(LOSSES),
}


@pytest.mark.parametrize(("table", "name"), [(key, name) for key, table in TABLES.items() for name in table.rows])
def test_it_is_what_jax_computes(table: str, name: str) -> None:
    assert not TABLES[table].disagreements(name)
