"""Operations on arrays, one by one: ten steps of a bundle are ten steps of `jax.jit`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement.case import Case
from agreement.rows import Table, row
from jax import lax

W = {"w": (5, 4)}
V = {"v": (7, 4)}
FLAT = {"v": (12,)}
ORDER = np.array([3, 0, 5, 1, 6, 2, 4], np.int32)
# Some indices are out of bounds, where each mode behaves differently.
WILD = np.array([3, 0, 9, 1, -9, 2], np.int32)
MODES = ("clip", "fill", "promise_in_bounds")


def dense(p, b):
    return b["x"] @ p["w"]


def inside(indices, size):
    return jnp.clip(indices, 0, size - 1)


SORTS: dict[str, Case] = {
    "sort": row(lambda p, b: jnp.sort(dense(p, b), 1), W),
    "sort, first axis": row(lambda p, b: jnp.sort(dense(p, b), 0), W),
    "sort, descending": row(lambda p, b: jnp.sort(p["v"], 0, descending=True), V),
    "two sorts": row(lambda p, b: jnp.sort(dense(p, b), 0) - jnp.sort(jnp.sin(b["x"]) @ p["w"], 0), W),
    "sort of pairs": row(lambda p, b: sum(lax.sort((p["v"], jnp.cos(p["v"])), dimension=0, num_keys=1)), V),
    "sort by two keys": row(
        lambda p, b: sum(lax.sort((jnp.round(p["v"]), p["v"], jnp.sin(p["v"])), dimension=0, num_keys=2)), V
    ),
    "argsort": row(lambda p, b: jnp.argsort(p["v"], 0) * jnp.sin(p["v"]), V),
    "ranks": row(lambda p, b: jnp.argsort(jnp.argsort(dense(p, b), 1), 1) * dense(p, b), W),
    "lexsort": row(lambda p, b: p["v"][jnp.lexsort((p["v"][:, 0], jnp.round(p["v"][:, 1])))], V),
    "top_k": row(lambda p, b: lax.top_k(p["v"].T, 3)[0], V),
    "top_k, indices": row(lambda p, b: lax.top_k(dense(p, b), 2)[1] + lax.top_k(dense(p, b), 2)[0], W),
    "argmax": row(lambda p, b: jnp.argmax(p["v"], 0) * p["v"], V),
    "argmin": row(lambda p, b: jnp.argmin(dense(p, b), 1)[:, None] * dense(p, b), W),
    "max with ties": row(lambda p, b: jnp.max(jax.nn.relu(p["v"]), 0), V),
    "median": row(lambda p, b: jnp.median(p["v"], 0), V),
    "quantile": row(lambda p, b: jnp.quantile(p["v"], jnp.array([0.1, 0.3, 0.9]), axis=0), V),
    "median and quantile": row(lambda p, b: jnp.median(dense(p, b), 1) + jnp.quantile(dense(p, b), 0.3, axis=1), W),
    "searchsorted": row(lambda p, b: jnp.searchsorted(jnp.sort(p["v"][:, 0]), p["v"][:, 1]) * p["v"][:, 2], V),
    "unique": row(lambda p, b: jnp.unique(jnp.round(p["v"]), size=9, fill_value=0.5), V),
    "partition": row(lambda p, b: jnp.partition(p["v"], 3, axis=0)[3], V),
    "permutation": row(lambda p, b: jax.random.permutation(jax.random.key(3), p["v"]), V),
    "permutation, independent": row(
        lambda p, b: jax.random.permutation(jax.random.key(3), p["v"], axis=1, independent=True), V
    ),
}

GATHERS: dict[str, Case] = {
    **{
        f"gather, {mode}": row(
            lambda p, b, m=mode: p["v"].at[jnp.asarray(WILD if m != "promise_in_bounds" else ORDER)].get(mode=m), V
        )
        for mode in MODES
    },
    "gather, fill of a value": row(lambda p, b: p["v"].at[jnp.asarray(WILD)].get(mode="fill", fill_value=0.7), V),
    "gather of elements": row(lambda p, b: p["v"][b["i"], b["i"] % 4], V),
    "take": row(lambda p, b: jnp.take(p["v"], b["i"] + 4, axis=0), V),
    "take_along_axis": row(lambda p, b: jnp.take_along_axis(p["v"], jnp.argsort(p["v"], 0), 0), V),
    "embedding": row(lambda p, b: p["v"][b["i"]] * b["x"][:, :4], V),
    "one_hot": row(lambda p, b: jax.nn.one_hot(b["i"], 7) @ p["v"], V),
    "dynamic_slice": row(lambda p, b: lax.dynamic_slice(p["v"], (b["i"][0], b["i"][0] % 3), (3, 2)), V),
    "dynamic_slice, clamped": row(lambda p, b: lax.dynamic_slice(p["v"], (b["i"][0] + 3, 2), (4, 2)), V),
    "dynamic_index_in_dim": row(lambda p, b: lax.dynamic_index_in_dim(p["v"], b["i"][0], 0, keepdims=False), V),
    "dynamic_update_slice": row(
        lambda p, b: lax.dynamic_update_slice(p["v"], jnp.sin(p["v"][:2, :2]), (b["i"][0], 1)) + p["v"], V
    ),
    "boolean mask": row(lambda p, b: jnp.where(p["v"] > 0, p["v"], 0.1 * p["v"]), V),
    "nonzero": row(lambda p, b: p["v"][jnp.nonzero(p["v"][:, 0] > 0, size=5, fill_value=2)[0]], V),
    "choose": row(lambda p, b: jnp.choose(b["i"] % 3, [p["v"][0, 0], p["v"][1, 1], p["v"][2, 2]], mode="clip"), V),
    "interp": row(lambda p, b: jnp.interp(b["x"], jnp.linspace(-2, 2, 7), p["v"][:, 0]), V),
    "convolve": row(lambda p, b: jnp.convolve(p["v"][:, 0], p["v"][:3, 1]), V),
}


def _scatters() -> dict[str, Case]:
    ways = {
        "add": lambda ref, value, mode: ref.add(value, mode=mode),
        "set": lambda ref, value, mode: ref.set(value, mode=mode, unique_indices=True),
        "mul": lambda ref, value, mode: ref.mul(value, mode=mode, unique_indices=True),
        # JAX has no gradient of these.
        "min": lambda ref, value, mode: lax.stop_gradient(ref.min(value, mode=mode)),
        "max": lambda ref, value, mode: lax.stop_gradient(ref.max(value, mode=mode)),
    }
    found = {}
    for name, way in ways.items():
        for mode in ("clip", "drop", "promise_in_bounds"):
            # Clipped indices may be equal, for which only a sum is defined.
            wild = WILD if mode == "drop" or (mode == "clip" and name == "add") else ORDER[:6]
            found[f"scatter {name}, {mode}"] = row(
                lambda p, b, way=way, mode=mode, wild=wild: (
                    p["v"] * way(jnp.sin(p["v"]).at[jnp.asarray(wild)], p["v"][:6] + 0.5, mode)
                ),
                V,
            )
    return found


SCATTERS: dict[str, Case] = _scatters() | {
    "scatter into a parameter": row(lambda p, b: p["v"].at[b["i"]].add(b["x"][:, :4]) * p["v"], V),
    "scatter of elements": row(lambda p, b: jnp.zeros((7, 4)).at[b["i"], b["i"] % 4].add(b["x"][:, 0]) * p["v"], V),
    "scatter of columns": row(lambda p, b: p["v"].at[:, jnp.array([2, 0])].set(jnp.cos(p["v"][:, :2])), V),
    "scatter of a slice": row(lambda p, b: p["v"].at[1:6:2].multiply(p["v"][:3] ** 2), V),
    "segment_sum": row(lambda p, b: jax.ops.segment_sum(dense(p, b), b["i"], 5), W),
    "segment_max": row(
        lambda p, b: jnp.where(jnp.isfinite(m := jax.ops.segment_max(dense(p, b), b["i"], 5)), m, 0.0), W
    ),
    "segment_prod": row(lambda p, b: jax.ops.segment_prod(lax.stop_gradient(dense(p, b)), b["i"], 5) * p["w"], W),
    "bincount": row(lambda p, b: jnp.bincount(b["i"], length=5)[:, None] * p["w"], W),
    "histogram": row(lambda p, b: jnp.histogram(p["v"], bins=4, range=(-2, 2))[0] * p["v"], V),
    "scatter_apply": row(lambda p, b: lax.stop_gradient(p["v"]).at[jnp.asarray(ORDER[:3])].apply(jnp.exp) * p["v"], V),
}

SCANS: dict[str, Case] = {
    "cumsum": row(lambda p, b: jnp.cumsum(p["v"], 0), V),
    "cumsum, reverse": row(lambda p, b: lax.cumsum(p["v"], 0, reverse=True), V),
    "cumsum over examples": row(lambda p, b: jnp.cumsum(dense(p, b), 0), W),
    "cumsum of a long vector": row(lambda p, b: jnp.cumsum(jnp.tile(p["v"], 60)), FLAT),
    "cumprod": row(lambda p, b: jnp.cumprod(p["v"], 0), V),
    "cummax": row(lambda p, b: lax.cummax(p["v"], 0), V),
    "cummin": row(lambda p, b: lax.cummin(p["v"], 1, reverse=True), V),
    "cumlogsumexp": row(lambda p, b: lax.cumlogsumexp(p["v"], 0), V),
    "diff": row(lambda p, b: jnp.diff(p["v"], axis=0), V),
    "associative_scan": row(lambda p, b: lax.associative_scan(lambda a, c: a * 0.5 + c, p["v"], axis=0), V),
    "associative_scan of matrices": row(lambda p, b: lax.associative_scan(jnp.matmul, p["m"] * 0.5), {"m": (5, 3, 3)}),
    "associative_scan, reverse": row(lambda p, b: lax.associative_scan(jnp.logaddexp, p["v"], axis=0, reverse=True), V),
}

SHAPES: dict[str, Case] = {
    "roll": row(lambda p, b: jnp.roll(p["v"], 2, 0) * p["v"], V),
    "flip": row(lambda p, b: jnp.flip(p["v"], 0) * p["v"], V),
    "pad between": row(lambda p, b: lax.pad(p["v"], jnp.sum(p["v"]) * 0, ((1, 2, 1), (0, 1, 2))), V),
    "pad below zero": row(lambda p, b: lax.pad(p["v"], 0.0 * p["v"][0, 0], ((-1, 2, 0), (1, -2, 1))), V),
    "pad, reflect": row(lambda p, b: jnp.pad(p["v"], ((2, 1), (1, 1)), mode="reflect"), V),
    "pad, wrap": row(lambda p, b: jnp.pad(p["v"], 2, mode="wrap"), V),
    "concatenate": row(lambda p, b: jnp.concatenate([p["v"], p["v"][:3] * 2, p["v"][2:]], 0), V),
    "stack": row(lambda p, b: jnp.stack([p["v"], jnp.sin(p["v"])], 1), V),
    "tile": row(lambda p, b: jnp.tile(p["v"], (2, 3)), V),
    "repeat": row(lambda p, b: jnp.repeat(p["v"], jnp.array([1, 0, 2, 1, 3, 0, 1]), axis=0, total_repeat_length=8), V),
    "slices with strides": row(lambda p, b: p["v"][1::2, ::-1] * p["v"][:6:2], V),
    "triangles": row(lambda p, b: jnp.tril(p["v"]) - jnp.triu(p["v"], 1), V),
    "diagonals": row(lambda p, b: jnp.diag(p["v"][:4, 0]) + jnp.diagonal(p["v"][:4]), V),
    "trace": row(lambda p, b: jnp.trace(p["v"])[None] * p["v"][0], V),
    "einsum, bilinear": row(lambda p, b: jnp.einsum("ni,ij,nj->n", b["x"], p["w"] @ p["w"].T, b["x"]), W),
    "einsum, batched": row(lambda p, b: jnp.einsum("abc,acd->bad", p["m"], p["m"]), {"m": (5, 3, 3)}),
    "einsum, diagonal": row(lambda p, b: jnp.einsum("aii,ab->bi", p["m"], p["m"][:, 0]), {"m": (5, 3, 3)}),
    "tensordot": row(lambda p, b: jnp.tensordot(p["m"], p["m"], ((1, 2), (2, 1))), {"m": (5, 3, 3)}),
    "kron": row(lambda p, b: jnp.kron(p["v"][:2, :2], p["v"][2:4]), V),
    "outer": row(lambda p, b: jnp.outer(p["v"], p["v"][0]), V),
    "cross": row(lambda p, b: jnp.cross(p["v"][:, :3], b["x"][:1, :3]), V),
    "vector products": row(lambda p, b: p["v"] @ p["v"][0] + p["v"][:, 1] @ p["v"][:, 2], V),
    "matrix power": row(lambda p, b: jnp.linalg.matrix_power(p["m"][0] * 0.5, 5), {"m": (1, 3, 3)}),
    "meshgrid": row(lambda p, b: jnp.prod(jnp.stack(jnp.meshgrid(p["v"][:, 0], p["v"][:5, 1])), 0), V),
    "vander": row(lambda p, b: jnp.vander(jnp.tanh(p["v"][:, 0]), 4), V),
    "mean, variance": row(lambda p, b: jnp.mean(p["v"], 0) + jnp.var(p["v"], 0) + jnp.std(p["v"], 0), V),
    "prod": row(lambda p, b: jnp.prod(p["v"], 0), V),
    "logsumexp": row(lambda p, b: jax.nn.logsumexp(p["v"], 0), V),
    "any, all": row(lambda p, b: (jnp.any(p["v"] > 1, 0) | jnp.all(p["v"] < 1, 0)) * p["v"], V),
    "norms": row(lambda p, b: jnp.linalg.norm(p["v"], axis=0) + jnp.linalg.norm(p["v"], 1, axis=0), V),
    "reduction by two results": row(
        lambda p, b: (
            sum(
                lax.reduce(
                    (lax.stop_gradient(p["v"]), lax.stop_gradient(jnp.sin(p["v"]))),
                    (np.float32(-np.inf), np.float32(0)),
                    lambda a, c: (jnp.maximum(a[0], c[0]), jnp.where(a[0] >= c[0], a[1], c[1])),
                    (0,),
                )
            )
            * p["v"]
        ),
        V,
    ),
    "a large mean": row(lambda p, b: jnp.mean(jnp.outer(jnp.tile(p["v"], 90), jnp.tile(p["v"], 7)) ** 2)[None], FLAT),
}

TABLES = {
    "sorts": Table(SORTS),
    "gathers": Table(GATHERS),
    "scatters": Table(SCATTERS),
    "scans": Table(SCANS),
    "shapes": Table(SHAPES),
}


@pytest.mark.parametrize(("table", "name"), [(key, name) for key, table in TABLES.items() for name in table.rows])
def test_it_is_what_jax_computes(table: str, name: str) -> None:
    assert not TABLES[table].disagreements(name)
