"""Wide bands under plain JAX on a processor: all tensors in one chain give what each gives by itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.optimizer import _joined, _sonew_step, scale_by_sonew
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.optimizer._joined import Joined
from sonew_compiled.optimizer._logdet import apply, factorize

GAMMA = 1e-6
SHAPES = ((5, 4), (3,), (1, 7), (2, 3, 5))


def _statistics(shape: tuple[int, ...], b: int, *, singular: bool) -> tuple[Chain, list[jax.Array], jax.Array]:
    """Statistics of some gradients; the singular ones are those of two, so that nearly all pivots are bad."""
    rng = np.random.default_rng([b, *shape])
    chain = Chain.of(shape, "column")
    samples = [chain.view(jnp.asarray(rng.normal(size=shape))) for _ in range(2 if singular else 3 * b)]
    bands = [sum((g * chain.shift(g, d) for g in samples), jnp.zeros(())) for d in range(b + 1)]
    return chain, bands, chain.view(jnp.asarray(rng.normal(size=shape)))


@pytest.mark.usefixtures("float64")
def test_joined_tensors_are_preconditioned_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks shorter than a tensor; regular and singular tensors stand side by side."""
    monkeypatch.setattr(_joined, "_BLOCK", 8)
    b = 3
    tensors = [_statistics(shape, b, singular=index % 2 == 1) for index, shape in enumerate((*SHAPES, *SHAPES))]
    damping = [jnp.asarray(1e-9 if index % 2 else 0.1) for index in range(len(tensors))]
    chains, bands, moments = zip(*tensors, strict=True)
    joined = Joined(chains, bands, moments)
    removed = 0
    for (chain, H, m), added, row, u in zip(
        tensors, damping, joined.largest_rows(), joined.directions(damping, GAMMA), strict=True
    ):
        factors = factorize(chain, [H[0] + added, *H[1:]], tolerance=GAMMA, is_damped=True)
        removed += int(jnp.sum(factors.solution[0] == 0))
        wanted = apply(chain, factors, m)
        np.testing.assert_allclose(u, wanted, rtol=1e-9, atol=1e-9 * float(jnp.abs(wanted).max()))
        beside = [np.abs(np.asarray(H[d]).T.reshape(-1)) for d in range(1, b + 1)]
        size = m.size
        around = [
            max((max(e[j], e[j - d - 1] if j > d else 0) for d, e in enumerate(beside)), default=0.0)
            for j in range(size)
        ]
        assert row == pytest.approx(max(np.asarray(H[0]).T.reshape(-1) + around), rel=1e-12)
    assert removed > len(tensors), "no edges were removed"


def _parameters(tensors: int) -> dict[str, jax.Array]:
    return {f"w{index}": jnp.ones((3 + index, 4)) for index in range(tensors)}


def _operations(jaxpr: Any) -> Counter[str]:
    """The operations of a traced function, those of its inner functions and loops too."""
    found: Counter[str] = Counter()
    for equation in jaxpr.eqns:
        inner = [each for each in jax.tree.leaves(list(equation.params.values())) if hasattr(each, "eqns")]
        inner += [each.jaxpr for each in jax.tree.leaves(list(equation.params.values())) if hasattr(each, "consts")]
        for each in inner:
            found += _operations(each)
        if not inner:
            found[equation.primitive.name] += 1
    return found


def _of_update(tensors: int, band: int) -> Counter[str]:
    params = _parameters(tensors)
    tx = scale_by_sonew(band=band)
    return _operations(jax.make_jaxpr(tx.update)(params, tx.init(params)).jaxpr)


def test_no_tensor_adds_an_elimination() -> None:
    """An elimination is b divisions, and hundreds of other operations."""
    added = {band: _of_update(4, band) - _of_update(2, band) for band in (4, 8)}
    elimination = _of_update(2, 8).total() - _of_update(2, 4).total()
    assert elimination > 500, "eliminations are not in what is counted"
    assert added[4]["div"] == added[8]["div"]
    assert added[4].total() < 2 * 150
    assert added[8].total() < 2 * 200
    assert not {"while", "scan", "cond"} & set(added[8])


def test_only_plain_jax_on_a_processor_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = _of_update(2, 3)["dynamic_slice"]
    assert joined > 0
    assert _of_update(2, 1)["dynamic_slice"] == 0
    with pinned_settings():
        assert _of_update(2, 3)["dynamic_slice"] == 0
    monkeypatch.setattr(_sonew_step, "platform", lambda: "gpu")
    assert _of_update(2, 3)["dynamic_slice"] == 0


def test_tensors_of_two_dtypes_keep_them() -> None:
    params = {"a": jnp.ones((3, 4), jnp.bfloat16), "b": jnp.ones((2, 5)), "c": jnp.zeros((0, 2))}
    tx = scale_by_sonew(band=2)
    updates, state = tx.update(params, tx.init(params))
    for name, value in params.items():
        assert updates[name].dtype == value.dtype
        assert updates[name].shape == value.shape
        assert np.isfinite(np.asarray(updates[name], np.float32)).all()
    assert state.bands["a"][2].dtype == jnp.bfloat16
