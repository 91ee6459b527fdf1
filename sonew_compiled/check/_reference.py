"""The calls to check, with their inputs and JAX's results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled import passes
from sonew_compiled.check._compare import movement
from sonew_compiled.contract import (
    GRADIENTS,
    INIT,
    LEARNING_RATE,
    LOSS,
    SEED,
    TRAIN_STEP,
    UPDATE,
    UPDATE_COMMON,
    Role,
    is_update,
    path_in_tree,
)
from sonew_compiled.errors import UsageError, counted
from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TensorSpec
from sonew_compiled.xla import compile_artifact, compile_lowered

# The number of times that the inputs are moved. Once is enough for large tensors, whose many elements show the effect.
_MOVED_RUNS, _MOVED_RUNS_OF_LARGE, _LARGE = 2, 1, 10**6
# Before a result is called wrong: where a number hangs on a comparison, only some changes of the inputs move it.
_FURTHER_RUNS = 3
# A loss explodes if one step adds this many times its size. The rate that takes its place is this part of it.
_EXPLODED, _LOWER = 10.0, 1e-3
# The relative change of float32 inputs that are moved: a few last places.
_LAST_PLACES = 2.0**-21
# Large tensors are moved by so many random numbers again and again. It is prime, so that rows get different ones.
_MOVES = 65537
# Not zero, which a generator of random numbers could leave out of its sums.
_SEED = 0x2B7E1516

Arrays = dict[str, np.ndarray]


class _Function:
    """An export as JAX computes it.

    Attributes:
      names: the names of its results.
    """

    def __init__(
        self, spec: FunctionSpec, run: Callable[..., Any], moved: Callable[[], Callable[..., Any]] | None = None
    ) -> None:
        self.names = [output.name for output in spec.outputs]
        self._inputs = [each.name for each in spec.inputs]
        self._run = run
        self._moved = cache(moved) if moved is not None else None

    def __call__(self, inputs: Mapping[str, np.ndarray], *, seed: int | None = None) -> Arrays:
        """The results by name; with a seed, those where what float32 computes moves."""
        given = [inputs[name] for name in self._inputs]
        if seed is None or self._moved is None:
            results = self._run(*given)
        else:
            results = self._moved()(*given, np.array(seed, np.int32))
        return dict(zip(self.names, map(np.asarray, results), strict=True))


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of an export.

    Attributes:
      function: its name.
      inputs: the inputs by name.
      results: JAX's results by name.
      again: computes JAX's results for other inputs; with a seed, as `_Function` does.
    """

    function: str
    inputs: Arrays
    results: Arrays
    again: Callable[..., Arrays]

    @cached_property
    def moved(self) -> list[Arrays]:
        """The results when the inputs change in their last places, for several changes; computed on demand."""
        large = sum(value.size for value in self.inputs.values()) > _LARGE
        return self._moved_runs(_MOVED_RUNS_OF_LARGE if large else _MOVED_RUNS, seed=0)

    def move_further(self) -> None:
        """Adds results for other changes, of what float32 computes as well."""
        done = len(self.moved)
        self.moved.extend(self._moved_runs(_FURTHER_RUNS, seed=done, within=range(done, done + _FURTHER_RUNS)))

    def _moved_runs(self, count: int, *, seed: int, within: Sequence[int] = ()) -> list[Arrays]:
        rng = np.random.default_rng(seed)
        inputs = [{name: _moved(value, rng) for name, value in self.inputs.items()} for _ in range(count)]
        with pinned_settings():
            return [self.again(each, seed=key) for each, key in zip_longest(inputs, within)]

    def movement(self, name: str) -> np.ndarray:
        """How far each element of a result moves at most when the inputs change in their last places."""
        return movement([other[name] for other in self.moved], self.results[name])


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A bundle's functions as JAX computes them.

    Attributes:
      manifest: the bundle's manifest.
      stablehlo: the bundle's module, which JAX runs if a precision policy has changed the traced functions.
      traced: the functions that JAX itself compiles in float32, by name.
    """

    manifest: Manifest
    stablehlo: bytes
    traced: Mapping[str, jax.stages.Lowered]

    @pinned_settings()
    def calls(self) -> list[Call]:
        """`init`, three steps, each from the state to which JAX came, and the other functions, on random batches.

        The last step is tried at a rate of 1 at least, where an update is no less than the parameter's rounding. If the
        rate is so high that the loss explodes in the first step, a lower one takes its place: what follows would hang
        on rounding.

        Raises:
          UsageError: a parameter starts as NaN.
        """
        manifest = self.manifest
        functions = {
            name: self._function(name, spec)
            for name, spec in manifest.functions.items()
            if name not in manifest.update_parts
        }
        rng = np.random.default_rng(0)
        rate = np.array(manifest.defaults["learning_rate"], np.float32)
        large = np.maximum(rate, np.float32(1))
        scalars = {name: np.array(manifest.optimizer[name], np.float32) for name in manifest.runtime_settings}
        fed = {SEED: np.array(_SEED, np.int32), LEARNING_RATE: rate}
        found = [_call(functions, manifest, INIT, fed)]
        _refuse_nan(manifest, found[0])
        batches = [_batch(manifest, rng, TRAIN_STEP) for _ in range(3)]
        steps = _steps(functions, manifest, {**found[0].results, **scalars}, batches[:2], rate or large)
        if _explodes(steps):
            steps = _steps(functions, manifest, {**found[0].results, **scalars}, batches[:2], _LOWER * (rate or large))
        state = {**steps[-1].results, **scalars}
        steps += _steps(functions, manifest, state, batches[2:], large)
        found += steps
        last = steps[-1]
        others = [name for name in manifest.functions if name not in (INIT, TRAIN_STEP) and not is_update(name)]
        for name in others:
            found.append(_call(functions, manifest, name, {**last.inputs, **_batch(manifest, rng, name)}))
            if name == GRADIENTS:
                found += _updates(functions, manifest, {**last.inputs, **found[-1].results})
        # Most optimizers divide by numbers that may be almost zero, so the change of their results is needed. It is
        # computed now, while IREE is still compiling.
        for call in steps:
            _ = call.moved
        return found

    @pinned_settings()
    def evaluations(self, weights: Mapping[str, np.ndarray]) -> list[Call]:
        """The functions of a bundle for inference with these weights, by name, each on a random batch."""
        rng = np.random.default_rng(0)
        functions = {name: self._function(name, spec) for name, spec in self.manifest.functions.items()}
        return [
            _call(functions, self.manifest, name, {**weights, **_batch(self.manifest, rng, name)}) for name in functions
        ]

    def _function(self, name: str, spec: FunctionSpec) -> _Function:
        if self.manifest.precision == "f32" and name in self.traced:
            # The bundle's module is what is checked here. It must not say how far JAX's results may move.
            lowered = self.traced[name]
            return _Function(spec, _compiled(lowered), partial(_moving, lowered, spec))
        make = partial(_artifact, self.stablehlo, name, spec)
        return _Function(spec, make(), partial(make, moves=True))


def _steps(
    functions: Mapping[str, _Function], manifest: Manifest, state: Arrays, batches: Sequence[Arrays], rate: np.ndarray
) -> list[Call]:
    """A step for each batch, from the state to which the one before came; `state` holds the settings as well."""
    found = []
    for batch in batches:
        found.append(
            _call(functions, manifest, TRAIN_STEP, {**state, **batch, LEARNING_RATE: np.array(rate, np.float32)})
        )
        state = {**state, **found[-1].results}
    return found


def _explodes(steps: Sequence[Call]) -> bool:
    """Whether the loss of the second step is many times that of the first, or not finite."""
    first, second = (float(call.results[LOSS]) for call in steps)
    return math.isfinite(first) and not second - first <= _EXPLODED * abs(first)


def _refuse_nan(manifest: Manifest, start: Call) -> None:
    for spec in manifest.functions[INIT].outputs:
        value = start.results[spec.name]
        if spec.role is Role.PARAMETER and (count := int(np.isnan(value.astype(np.float32)).sum())):
            raise UsageError(
                f"init gives NaN in {count} of {counted(value.size, 'number')} of {spec.name} for seed "
                f"{start.inputs[SEED]}; mend init, or compile with --no-check"
            )


def _compiled(lowered: jax.stages.Lowered) -> Callable[..., Any]:
    """A traced function compiled by `jax.jit`; random keys are passed as their numbers."""
    compiled = compile_lowered(lowered, quickly=True)
    kinds = [each.dtype for each in jax.tree.leaves(lowered.in_avals)]

    def run(*arrays: np.ndarray) -> list[Any]:
        given = [
            jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(jnp.empty((), kind)))
            if jnp.issubdtype(kind, jax.dtypes.prng_key)
            # Not a JAX array: XLA would compile its making anew for each shape.
            else array
            for array, kind in zip(arrays, kinds, strict=True)
        ]
        return [
            jax.random.key_data(each) if jnp.issubdtype(each.dtype, jax.dtypes.prng_key) else each
            for each in jax.tree.leaves(compiled(*given))
        ]

    return run


def _artifact(stablehlo: bytes, name: str, spec: FunctionSpec, *, moves: bool = False) -> Callable[..., Any]:
    """An export of the bundle's module as XLA runs it; if what it computes moves, it takes a seed as well."""
    return _executable(passes.from_portable_artifact(stablehlo), [f"select-export:name={name}"], spec, moves=moves)


def _moving(lowered: jax.stages.Lowered, spec: FunctionSpec) -> Callable[..., Any]:
    """A traced function that takes a seed as well, by which what it computes moves."""
    module = passes.parse(str(lowered.compiler_ir("stablehlo")))
    return _executable(module, ["strip-shardings", "legalize-chlo", "select-export:name=main"], spec, moves=True)


def _executable(module: Any, rewrites: Sequence[str], spec: FunctionSpec, *, moves: bool) -> Callable[..., Any]:
    passes.run_pipeline(module, [passes.parse_pass(each) for each in (*rewrites, *(["move-results"] if moves else []))])
    inputs, outputs = (
        [jax.ShapeDtypeStruct(each.shape, as_dtype(each.dtype)) for each in specs]
        for specs in (spec.inputs, spec.outputs)
    )
    if moves:
        inputs.append(jax.ShapeDtypeStruct((), np.int32))
    return compile_artifact(passes.to_portable_artifact(module), inputs, outputs, platform="cpu", quickly=True)


def _call(functions: Mapping[str, _Function], manifest: Manifest, name: str, inputs: Mapping[str, np.ndarray]) -> Call:
    taken = {spec.name: inputs[spec.name] for spec in manifest.functions[name].inputs}
    return Call(function=name, inputs=taken, results=functions[name](taken), again=functions[name])


def _updates(functions: Mapping[str, _Function], manifest: Manifest, inputs: Arrays) -> list[Call]:
    """The calls of `update` and of its parts, which must give what `update` gives."""
    whole = _call(functions, manifest, UPDATE, inputs)
    if not manifest.update_parts:
        return [whole]
    common = _call(functions, manifest, UPDATE_COMMON, inputs)
    calls = [whole, common]
    for name in manifest.update_parts:
        spec = manifest.functions[name]
        given = {each.name: {**inputs, **_numbers(common)}[each.name] for each in spec.inputs}
        names = [each.name for each in spec.outputs]
        again = partial(_part, functions[UPDATE], names, inputs)
        calls.append(Call(function=name, inputs=given, results={key: whole.results[key] for key in names}, again=again))
    return calls


def _numbers(common: Call) -> Arrays:
    """What the common part of an update hands to the others."""
    return {name: value for name, value in common.results.items() if name not in common.inputs}


def _part(
    update: _Function,
    names: Sequence[str],
    inputs: Arrays,
    given: Mapping[str, np.ndarray],
    *,
    seed: int | None = None,
) -> Arrays:
    """The results of these names of the whole update, from the inputs of a part and others."""
    results = update({**inputs, **given}, seed=seed)
    return {name: results[name] for name in names}


def _moved(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array with a random change in the last places of each float32 number."""
    if array.dtype != np.float32 or not array.ndim:
        return array
    factors = 1 + np.float32(_LAST_PLACES) * (2 * rng.random(min(array.size, _MOVES), np.float32) - 1)
    moved: np.ndarray = np.multiply(array, np.resize(factors, array.shape))
    return moved


def _batch(manifest: Manifest, rng: np.random.Generator, function: str) -> Arrays:
    """A random batch: numbers from 0 to 1, and labels below the model's classes, or below 2 without classes."""
    fields = [spec for spec in manifest.functions[function].inputs if spec.role == Role.BATCH]
    return {spec.name: _field(spec, manifest, rng) for spec in fields}


def _field(spec: TensorSpec, manifest: Manifest, rng: np.random.Generator) -> np.ndarray:
    dtype = as_dtype(spec.dtype)
    if dtype.kind in "iub":
        return rng.integers(0, manifest.classes.get(path_in_tree(spec.name, Role.BATCH), 2), spec.shape).astype(dtype)
    return rng.random(spec.shape, np.float32).astype(dtype)
