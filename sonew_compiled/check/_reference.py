"""What JAX computes: the calls to try, with their inputs and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled import passes
from sonew_compiled.check._compare import movement
from sonew_compiled.contract import INIT, LEARNING_RATE, SEED, TRAIN_STEP, Role, path_in_tree
from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TensorSpec
from sonew_compiled.xla import OPTIONS, compile_artifact

_STEPS = 3
# How often the inputs are moved: of large models once, whose tensors have elements enough to tell how far they move.
_MOVED_RUNS, _MOVED_RUNS_OF_LARGE, _LARGE = 2, 1, 10**7
# Of float32 inputs, relative: some last places.
_LAST_PLACES = 2.0**-21

Arrays = dict[str, np.ndarray]
_Function = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of an export.

    Attributes:
      function: its name.
      inputs: by name.
      results: by name, as JAX has them.
      moved: by name, how far these move when the inputs move in their last places.
    """

    function: str
    inputs: Arrays
    results: Arrays
    moved: Arrays


@dataclass(frozen=True, kw_only=True)
class Reference:
    """JAX's account of a bundle's functions.

    Attributes:
      manifest: of the bundle.
      stablehlo: the bundle's module, which JAX runs where a precision policy has changed what was traced.
      traced: by function what JAX itself compiles, in float32.
    """

    manifest: Manifest
    stablehlo: bytes
    traced: Mapping[str, jax.stages.Lowered]

    @pinned_settings()
    def calls(self) -> list[Call]:
        """`init`, three steps from the states that JAX comes to, `eval_step` and `predict`, on random batches.

        The steps are tried at a rate of 1 at least, where an update is no less than the parameter's rounding; the next
        one starts where JAX comes to at the bundle's own rate.
        """
        manifest = self.manifest
        functions = {name: self._function(name, spec) for name, spec in manifest.functions.items()}
        rng = np.random.default_rng(0)
        rate = np.array(manifest.defaults["learning_rate"], np.float32)
        large = np.maximum(rate, np.float32(1))
        scalars = {name: np.array(manifest.optimizer[name], np.float32) for name in manifest.runtime_settings}
        fed = {SEED: np.array(0, np.int32), LEARNING_RATE: rate}
        found = [_call(functions, manifest, INIT, fed, rng)]
        state = found[0].results
        for _ in range(_STEPS):
            inputs = {**state, **scalars, **_batch(manifest, rng), LEARNING_RATE: large}
            found.append(_call(functions, manifest, TRAIN_STEP, inputs, rng))
            state = functions[TRAIN_STEP]({**inputs, LEARNING_RATE: rate if rate else large})
        for name in manifest.functions.keys() - {INIT, TRAIN_STEP}:
            found.append(_call(functions, manifest, name, {**state, **_batch(manifest, rng)}, rng))
        return found

    def _function(self, name: str, spec: FunctionSpec) -> _Function:
        if self.manifest.precision == "f32":
            run: Callable[..., Any] = _compiled(self.traced[name])
        else:
            run = _artifact(self.stablehlo, name, spec)
        names = [output.name for output in spec.outputs]

        def function(inputs: Mapping[str, np.ndarray]) -> Arrays:
            results = run(*(inputs[each.name] for each in spec.inputs))
            return dict(zip(names, map(np.asarray, results), strict=True))

        return function


def _compiled(lowered: jax.stages.Lowered) -> Callable[..., Any]:
    """What `jax.jit` makes of a traced function; a key goes in and comes out as its numbers."""
    compiled = lowered.compile(compiler_options=OPTIONS)
    kinds = [each.dtype for each in jax.tree.leaves(lowered.in_avals)]

    def run(*arrays: np.ndarray) -> list[Any]:
        given = [
            jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(kind))
            if jnp.issubdtype(kind, jax.dtypes.prng_key)
            else jnp.asarray(array)
            for array, kind in zip(arrays, kinds, strict=True)
        ]
        return [
            jax.random.key_data(each) if jnp.issubdtype(each.dtype, jax.dtypes.prng_key) else each
            for each in jax.tree.leaves(compiled(*given))
        ]

    return run


def _artifact(stablehlo: bytes, name: str, spec: FunctionSpec) -> Callable[..., Any]:
    """An export of the bundle's module as XLA runs it."""
    module = passes.from_portable_artifact(stablehlo)
    passes.run_pipeline(module, [passes.parse_pass(f"select-export:name={name}")])

    inputs, outputs = (
        [jax.ShapeDtypeStruct(each.shape, as_dtype(each.dtype)) for each in specs]
        for specs in (spec.inputs, spec.outputs)
    )
    return compile_artifact(passes.to_portable_artifact(module), inputs, outputs, platform="cpu")


def _call(
    functions: Mapping[str, _Function],
    manifest: Manifest,
    name: str,
    inputs: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> Call:
    taken = {spec.name: inputs[spec.name] for spec in manifest.functions[name].inputs}
    results = functions[name](taken)
    runs = _MOVED_RUNS_OF_LARGE if manifest.parameter_count * manifest.batch_size > _LARGE else _MOVED_RUNS
    others = [functions[name]({key: _moved(value, rng) for key, value in taken.items()}) for _ in range(runs)]
    moved = {key: movement([other[key] for other in others], value) for key, value in results.items()}
    return Call(function=name, inputs=taken, results=results, moved=moved)


def _moved(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array with each float32 number moved in its last places, by chance."""
    if array.dtype != np.float32 or not array.ndim:
        return array
    factors = 1 + np.float32(_LAST_PLACES) * (2 * rng.random(array.shape, np.float32) - 1)
    moved: np.ndarray = np.multiply(array, factors)
    return moved


def _batch(manifest: Manifest, rng: np.random.Generator) -> Arrays:
    """Numbers from 0 to 1, and labels of the classes that the model has; two of one that does not say."""
    fields = [spec for spec in manifest.functions[TRAIN_STEP].inputs if spec.role == Role.BATCH]
    return {spec.name: _field(spec, manifest, rng) for spec in fields}


def _field(spec: TensorSpec, manifest: Manifest, rng: np.random.Generator) -> np.ndarray:
    dtype = as_dtype(spec.dtype)
    if dtype.kind in "iub":
        return rng.integers(0, manifest.classes.get(path_in_tree(spec.name, Role.BATCH), 2), spec.shape).astype(dtype)
    return rng.random(spec.shape, np.float32).astype(dtype)
