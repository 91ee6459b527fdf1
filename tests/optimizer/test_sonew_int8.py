"""SONew with its state in 8 bits: the noise, the rounding, the positive definite preconditioner, and the compiler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sonew_compiled
from sonew_compiled import compile_training
from sonew_compiled.models import load_model
from sonew_compiled.optimizer._chain import Chain
from sonew_compiled.optimizer._counter_noise import tensor_key, uniform_noise
from sonew_compiled.optimizer._eight_bits import GAMMA, empty_state, read_state, write_state
from sonew_compiled.optimizer._logdet import factorize
from sonew_compiled.optimizer._quantize import dequantize, level, quantize
from sonew_compiled.presets import optimizer_settings
from sonew_compiled.runtime import (
    Checkpoint,
    Device,
    Program,
    TrainingState,
    load_checkpoint,
    open_bundle,
    save_checkpoint,
)

STEPS = 400


def mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def test_the_noise_is_the_hash_of_the_counters() -> None:
    index = np.arange(24, dtype=np.uint32)
    for step, tensor in ((0, 0), (2**31 - 1, 5)):
        start = mix(np.array([(step + 0x9E3779B9) % 2**32], np.uint32))
        wanted = (mix(mix(index) ^ mix(start ^ np.uint32(tensor))) >> np.uint32(8)) / 2.0**24
        found = uniform_noise(tensor_key(jnp.asarray(step, jnp.int32), tensor), (2, 3, 4), jnp.dtype("float32"))
        np.testing.assert_array_equal(np.asarray(found).reshape(-1), wanted.astype(np.float32))


@pytest.mark.parametrize("signed", [True, False])
def test_numbers_become_one_of_two_levels_with_the_right_mean(signed: bool) -> None:
    count = 128 if signed else 256
    rng = np.random.default_rng(0)
    x = (10.0 ** rng.uniform(-9, 0, 512)).astype(np.float32)
    x[:256:3] = 0.1 * np.exp(rng.uniform(-0.05, 0.05, 86))  # at the border of two decades
    x[0], x[1] = 1, 0
    x *= rng.choice([-1, 1], 512) if signed else 1

    @jax.jit
    def rounded(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        q = quantize(jnp.asarray(x), signed=signed, key=tensor_key(step, 0))
        return dequantize(q, x.shape, signed=signed), q.scales

    drawn = [rounded(jnp.asarray(step, jnp.int32)) for step in range(STEPS)]
    values = np.stack([np.asarray(value, np.float64) for value, _ in drawn])
    scales = np.asarray(drawn[0][1])
    assert (scales.view(np.uint32) & 0xFFFF == 0).all(), "a bfloat16 number"
    levels = np.array([level(code, signed=signed) for code in range(count)])
    for block, scale in enumerate(scales):
        part = slice(256 * block, 256 * block + 256)
        size, found = np.abs(x[part]).astype(np.float64), np.abs(values[:, part])
        above = np.clip(np.searchsorted(scale * levels, size), 1, count - 1)
        low, high = scale * levels[above - 1], scale * levels[above]
        if not signed:
            low = np.where((size > 0) & (above == 1), high, low)  # a positive number does not become zero
        np.testing.assert_allclose(np.minimum(abs(found - low), abs(found - high)) / scale, 0, atol=1e-6)
        share = np.where(high > low, (size - low) / np.where(high > low, high - low, 1), 1)
        share = np.where(size == 0, 0, share)
        error = (found.mean(0) - (low + share * (high - low))) / scale
        deviation = np.sqrt(share * (1 - share) / STEPS) * (high - low) / scale
        assert (np.abs(error) <= 5 * deviation + (high - low) / scale / STEPS + 1e-7).all()


CHAIN = Chain(rows=17, cols=1)


@functools.partial(jax.jit, static_argnames="rounds")
def statistics(h: jax.Array, r: jax.Array, g: jax.Array, step: jax.Array, damping: float, *, rounds: bool) -> Any:
    """`H_t` after a step that began from the diagonal `h` and the correlations `r`, and the factors of its `X`."""
    root = jnp.sqrt(h)
    H = [h, r * root * CHAIN.shift(root, 1)]
    _, state = write_state(CHAIN, (17,), g, H, step=step, leaf=0)
    _, read = read_state(CHAIN, (17,), empty_state(g.reshape(-1), 0)[0], state)
    if not rounds:  # the edge alone is not rounded
        root = jnp.sqrt(read[0])
        read[1] = r * root * CHAIN.shift(root, 1)
    new = [0.9 * band + 0.1 * g * CHAIN.shift(g, d) for d, band in enumerate(read)]
    return read, new, factorize(CHAIN, [new[0] + damping, new[1]], tolerance=GAMMA)


@pytest.mark.usefixtures("float64")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.sampled_from([0.1, 3.0, 20.0]),
    near=st.sampled_from([0.0, 1e-9, 1e-3, 1 / 127, 2 / 127, 0.5]),
    moves=st.booleans(),
)
def test_x_is_positive_definite_whatever_is_rounded(seed: int, spread: float, near: float, moves: bool) -> None:
    """Correlations are near 1 in magnitude, and some diagonal entries are zero."""
    rng = np.random.default_rng(seed)
    h = np.exp(rng.normal(size=(17, 1)) * spread) * (rng.random((17, 1)) < 0.9)
    r = rng.choice([-1, 1], (17, 1)) * (1 - near * rng.random((17, 1)))
    r[-1] = 0
    g = moves * rng.normal(size=(17, 1)) * np.sqrt(h)
    damping = 1e-9 * h.max() + 1e-16
    (read, new, factors), (_, exact, _) = (
        statistics(h, r, g, np.int32(seed % 1000), damping, rounds=each) for each in (True, False)
    )
    diagonal, edge = (np.asarray(band)[:, 0] for band in new)
    damped = diagonal + damping
    # Claim 1: no edge is longer than the diagonal allows, so X exists before any edge is removed.
    read_diagonal, read_edge = (np.asarray(band)[:, 0] for band in read)
    assert ((read_diagonal > 0) == (h[:, 0] > 0)).all()
    assert (np.abs(read_edge[:-1]) <= np.sqrt(read_diagonal[:-1] * read_diagonal[1:]) * (1 + 1e-12)).all()
    s = damped[:-1] - edge[:-1] ** 2 / damped[1:]
    assert (s > 0).all()
    # Claim 2: the rounding of the edge moves a Schur complement by less than gamma of the diagonal.
    exact_s = damped[:-1] - np.asarray(exact[1])[:-1, 0] ** 2 / damped[1:]
    assert (np.abs(s - exact_s) <= GAMMA * damped[:-1]).all()
    # The removed edges are those of the algorithm, and what stays is the LogDet solution.
    bad = np.append(s <= GAMMA * damped[:-1], False)
    kept = ~(bad[:-1] | bad[1:])
    D, L = np.asarray(factors.D)[:, 0], -np.asarray(factors.solution[0])[:, 0]
    assert (D > 0).all()
    assert np.isfinite(D).all()
    np.testing.assert_array_equal(L[:-1] != 0, kept & (edge[:-1] != 0))
    np.testing.assert_allclose(1 / D[:-1], np.where(kept, s, damped[:-1]), rtol=1e-9)


@pytest.mark.parametrize("shape", [(9, 7), (5,)])
@pytest.mark.parametrize("band", [0, 1])
def test_a_step_is_that_of_the_state_as_it_is_read(shape: tuple[int, ...], band: int) -> None:
    rng = np.random.default_rng(0)
    params = jnp.zeros(shape)
    ours = sonew_compiled.scale_by_sonew(band=band, state="int8", rank1="sonew", tolerance=1e-3)
    plain = sonew_compiled.scale_by_sonew(band=band, rank1="sonew", tolerance=1e-3)
    chain = Chain.of(shape, "column")
    update, reference = jax.jit(ours.update), jax.jit(plain.update)
    state = ours.init(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.bands[1:])} <= {"int8"}
    for _ in range(12):
        g = jnp.asarray(rng.normal(size=shape).cumsum(0), jnp.float32)
        m, bands = read_state(chain, shape, state.mu, state.bands)
        before = plain.init(params)._replace(
            count=state.count, mu=m.reshape(shape), bands=tuple(each.reshape(shape) for each in bands)
        )
        wanted, after = reference(g, before)
        found, state = update(g, state)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
        # What is stored is what was computed, to a level of the block's scale.
        m, bands = read_state(chain, shape, state.mu, state.bands)
        largest = float(jnp.max(jnp.abs(after.mu)))
        np.testing.assert_allclose(m.reshape(shape), after.mu, atol=0.016 * largest)
        largest = float(jnp.max(after.bands[0]))
        for read, computed in zip(bands, after.bands, strict=True):
            np.testing.assert_allclose(read.reshape(shape), computed, atol=0.03 * largest)


def test_slow_decays_are_exact_in_the_mean_though_a_scale_has_8_bits() -> None:
    """Without gradients, momentum and diagonal are multiplied by their decays in every step.

    The scales are bfloat16 numbers, which 0.999 would not change if they were rounded to nearest.
    """
    decay, steps, shape = 0.999, 1000, (16, 32)
    tx = sonew_compiled.scale_by_sonew(b1=decay, b2=decay, band=0, state="int8")
    g = jnp.linspace(1.0, 2.0, 512).reshape(shape)
    state = tx.update(g, tx.init(g))[1]

    def read(state: Any) -> list[np.ndarray]:
        diagonal = dequantize(state.bands[0], shape, signed=False)
        return [np.asarray(each, np.float64) for each in (dequantize(state.mu, shape, signed=True), diagonal)]

    last = jax.lax.scan(lambda state, _: (tx.update(0 * g, state)[1], None), state, length=steps)[0]
    assert (np.asarray(last.bands[0].scales).view(np.uint32) & 0xFFFF == 0).all()
    for before, after in zip(read(state), read(last), strict=True):
        assert after.sum() / before.sum() == pytest.approx(decay**steps, rel=0.02)


def test_hard_gradients_leave_everything_finite() -> None:
    params = {"w": jnp.zeros((6, 5)), "s": jnp.zeros(()), "e": jnp.zeros((0, 3))}
    tx = sonew_compiled.scale_by_sonew(state="int8", rank1="sonew")
    update, rng = jax.jit(tx.update), np.random.default_rng(0)
    for scale in (0.0, 1e-30, 1.0, 1e30):
        state = tx.init(params)
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        for step in range(6):
            updates, state = update(jax.tree.map(lambda g, size=scale * (step < 4): size * g, grads), state)
            for leaf in jax.tree.leaves((updates, state)):
                assert np.isfinite(np.asarray(leaf, np.float64)).all(), (scale, step)


def test_the_autoencoder_has_3_bytes_of_state_a_parameter() -> None:
    params = jax.eval_shape(load_model("autoencoder").init, jax.eval_shape(lambda: jax.random.key(0)))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    state = jax.eval_shape(sonew_compiled.scale_by_sonew(state="int8").init, params)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert size / count == pytest.approx(3.03, abs=5e-3)


def test_a_wider_band_is_refused() -> None:
    with pytest.raises(ValueError, match=r"band is 2 and state is 'int8'.*give band 0 or 1, or state 'float'"):
        sonew_compiled.sonew(0.1, band=2, state="int8")
    with pytest.raises(ValueError, match="state is 'int4'; give one of float, int8"):
        sonew_compiled.sonew(0.1, state="int4")


# ----- through the compiler


def init(key: jax.Array) -> Any:
    return {"kernel": jax.random.normal(key, (5, 3)) / 2, "bias": jnp.zeros(3)}


def loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(jnp.sum((jnp.tanh(batch["x"] @ params["kernel"] + params["bias"]) - batch["y"]) ** 2, axis=-1))


def data(step: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(step).normal(size=(16, 5)).astype(np.float32)
    y = np.tanh(x @ np.random.default_rng(7).normal(size=(5, 3)))
    return {"x": x, "y": y.astype(np.float32)}


BATCH = {name: jax.ShapeDtypeStruct(value.shape, jnp.float32) for name, value in data(0).items()}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_it_compiles_and_resumes(cpu: Device, precision: str, tmp_path: Path) -> None:
    settings = optimizer_settings("tridiag-sonew", state="int8")
    micro_batch = 8 if precision == "f32" else None
    path = tmp_path / "bundle"
    compile_training(
        loss, init, settings, BATCH, output=path, precision=precision, micro_batch=micro_batch, check=False
    )
    program = Program.load(open_bundle(path), cpu)
    dtypes = {spec.name.rpartition("kernel")[2]: spec.dtype for spec in program.manifest.state if "kernel" in spec.name}
    floats = "float32" if precision == "f32" else "bfloat16"
    assert dtypes == {"": floats, "/codes": "uint8", "/scales": floats, "/0/codes": "uint8", "/0/scales": floats} | {
        "/1": "int8"
    }
    rate = cpu.upload(np.array(3e-2, np.float32))

    def steps(state: TrainingState, indices: range) -> list[float]:
        return [state.step(program.upload_batch(data(i)), rate) for i in indices]

    state = TrainingState.initial(program, seed=0)
    params = {key.partition("/")[2]: jnp.asarray(value, jnp.float32) for key, value in state.parameters().items()}
    losses = steps(state, range(9))
    saved = Checkpoint(step=9, tensors=state.download(), settings={})
    loaded = load_checkpoint(save_checkpoint(tmp_path / "run", saved, program.manifest), program.manifest)
    resumed = TrainingState.from_arrays(program, loaded.tensors)
    losses += steps(state, range(9, 40))
    assert steps(resumed, range(9, 40)) == losses[9:]
    for key, value in state.download().items():
        assert value.tobytes() == resumed.download()[key].tobytes(), key
    expected = _jitted_losses(params, 3e-2, 40)
    np.testing.assert_allclose(losses, expected, rtol=5e-3 if precision == "f32" else 0.1)
    assert losses[-1] < 0.5 * losses[0]


def _jitted_losses(params: Any, rate: float, count: int) -> list[float]:
    tx = sonew_compiled.sonew(rate, b2=0.95, state="int8")
    step = jax.jit(lambda p, s, b: (jax.value_and_grad(loss)(p, b), s))
    update: Callable[..., Any] = jax.jit(tx.update)
    inner, losses = tx.init(params), []
    for index in range(count):
        (value, grads), inner = step(params, inner, data(index))
        updates, inner = update(grads, inner, params)
        params = jax.tree.map(jnp.add, params, updates)
        losses.append(float(value))
    return losses
