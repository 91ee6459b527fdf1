"""JAX's results for a case, by the names of a bundle's tensors, and their accuracy in float32."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agreement.case import Case, values
from sonew_compiled.xla import compile_lowered

Arrays = dict[str, np.ndarray]

# The relative change of inputs that shows how much a result depends on their last bits.
_NUDGE = 1e-6


class Oracle:
    """The functions of a bundle, as `jax.jit` runs them on arrays by name."""

    def __init__(self, case: Case, rate: float) -> None:
        self.case = case
        self.rate = np.float32(rate)
        self._state = jax.eval_shape(self._init, jax.ShapeDtypeStruct((), jnp.int32))
        self.names = _names(self._state)
        self._compiled: dict[tuple[str, bool], jax.stages.Compiled] = {}

    def initial(self, seed: int) -> Arrays:
        """The state of a seed."""
        number = np.int32(seed)
        lowered = jax.jit(lambda seed: _flat(self._init(seed))).lower(number)
        return _arrays(compile_lowered(lowered, quickly=True)(number))

    def batch(self, seed: int) -> Arrays:
        """The fields of a batch."""
        return values(self.case.batch, np.random.default_rng(seed))

    def call(self, function: str, state: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> Arrays:
        """`train_step` or `eval_step` in float32."""
        return self._run(function, dict(state), dict(batch), wide=False)

    def chain(self, state: Arrays, batches: Sequence[Arrays]) -> Arrays:
        """The last state and the losses of several steps in a row."""
        return self._chained(self.call, state, batches)

    def leeway(self, function: str, state: Arrays, batches: Sequence[Arrays]) -> Arrays:
        """The accepted error of each tensor of a result: the effect of rounding and of the inputs' last bits.

        The function is computed in float32, in float64, and in float64 for inputs that differ by a millionth. If a
        program is well conditioned, these agree to some 1e-6. If it compares or sorts numbers that are almost equal,
        they do not, and either outcome is right.
        """
        rng = np.random.default_rng(len(state))

        def nudged(arrays: Mapping[str, np.ndarray]) -> Arrays:
            return {
                name: array * (1 + _NUDGE * rng.uniform(-1, 1, array.shape)) if _is_float(array) else array
                for name, array in arrays.items()
            }

        def run(call: Callable[..., Arrays], state: Arrays, batches: Sequence[Arrays]) -> Arrays:
            return self._chained(call, state, batches) if function == "chain" else call(function, state, batches[0])

        narrow = run(self.call, state, batches)
        exact = run(self._wide, state, batches)
        moved = [run(self._wide, nudged(state), [nudged(each) for each in batches]) for _ in range(2)]
        result = {}
        for name, value in exact.items():
            value = value.astype(np.float64)
            spread = 50 * np.abs(narrow[name] - value) + sum(10 * np.abs(each[name] - value) for each in moved)
            spread = np.where(np.isfinite(spread), spread, np.inf)
            result[name] = spread.max(initial=0.0)
        return result

    def _wide(self, function: str, state: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> Arrays:
        with jax.enable_x64(True):
            return self._run(function, _widened(state), _widened(batch), wide=True)

    def _chained(self, call: Callable[..., Arrays], state: Arrays, batches: Sequence[Arrays]) -> Arrays:
        losses = {}
        for number, batch in enumerate(batches, 1):
            state = call("train_step", state, batch)
            losses[f"loss {number}"] = state.pop("loss")
        return state | losses

    def _init(self, seed: Any) -> dict[str, Any]:
        params = self.case.init(jax.random.key(seed, impl="threefry2x32"))
        return {"params": params, "optimizer": self.case.optimizer(jnp.zeros((), jnp.float32)).init(params)}

    def _run(self, function: str, state: Arrays, batch: Arrays, *, wide: bool) -> Arrays:
        if (function, wide) not in self._compiled:
            lowered = jax.jit(functools.partial(self._function, function)).lower(state, batch)
            self._compiled[function, wide] = compile_lowered(lowered, quickly=True)
        return _arrays(self._compiled[function, wide](state, batch))

    def _function(self, function: str, arrays: Arrays, batch: Arrays) -> dict[str, Any]:
        case = self.case
        # A state from a computation in float32 has float64 beside integers of 32 bits: by name, not by tree.
        leaves, tree = jax.tree.flatten(self._state)
        state = jax.tree.unflatten(tree, [_keyed(arrays[name], s) for name, s in zip(self.names, leaves, strict=True)])
        params = state["params"]
        if function == "eval_step":
            one = lambda example: case.loss(params, jax.tree.map(lambda x: x[None], example))  # noqa: E731
            return {"losses": jax.vmap(one)(batch)}
        loss, grads = jax.value_and_grad(case.loss)(params, batch)
        updates, optimizer = case.optimizer(jnp.asarray(self.rate)).update(grads, state["optimizer"], params)
        after = {"params": optax.apply_updates(params, updates), "optimizer": optimizer}
        return _flat(after) | {"loss": loss}


def _names(tree: Any) -> list[str]:
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


def _flat(tree: Any) -> dict[str, jax.Array]:
    """The leaves by name; of a key its numbers, as a bundle keeps them."""
    leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return dict(zip(_names(tree), leaves, strict=True))


def _keyed(array: Any, like: jax.ShapeDtypeStruct) -> Any:
    return jax.random.wrap_key_data(array, dtype=like.dtype) if _is_key(like) else array


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _arrays(results: Mapping[str, jax.Array]) -> Arrays:
    return {name: np.asarray(each) for name, each in results.items()}


def _is_float(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def _widened(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name: array.astype(np.float64) if _is_float(array) else array for name, array in arrays.items()}
