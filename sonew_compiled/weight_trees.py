"""A model's weights between files and JAX's trees: nested dicts as flax has them, equinox modules, any pytree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.requirements import names_of
from sonew_compiled.runtime.manifest import TensorSpec
from sonew_compiled.runtime.weights import own_names, read_weights, save_parameters


def save_weights(path: str | Path, params: Any, state: Any = None) -> None:
    """Writes a tree of parameters as a file that `sonew run --params` and `--checkpoint` take.

    Args:
      path: a `.npz` file, or else a safetensors file; see `sonew_compiled.runtime.save_parameters`.
      params: any pytree of arrays, such as what `init` gives. Its tensors are named by their paths, `layer0/kernel`.
      state: the model's state, if it has one; its names begin with `state/`.

    Raises:
      UsageError: two tensors have the same name, or a leaf is no array.
      SonewError: the file cannot be written.
    """
    specs, leaves = _tensors(params, state)
    names = own_names(specs)
    save_parameters(path, {names[spec.name]: np.asarray(leaf) for spec, leaf in zip(specs, leaves, strict=True)})


def load_weights(path: str | Path, like: Any, state: Any = None, *, raw: bool = False) -> Any:
    """Reads weights into a tree: those of `sonew export`, `save_weights`, a checkpoint or another program.

    Args:
      path: a `.safetensors` or `.npz` file, a checkpoint, or a run's folder for its latest one.
      like: a tree of arrays, or of `jax.ShapeDtypeStruct`, with the structure, shapes and dtypes to read.
      state: likewise of the model's state, if it has one.
      raw: whether to take the parameters of a checkpoint that has averages of them, in place of the averages.

    Returns:
      A tree like `like`, of JAX's arrays; if `state` is given, a pair with a tree like it.

    Raises:
      UsageError: there is no such file, a leaf of `like` is no array, or the file holds no state.
      SonewError: the file is damaged, or holds other tensors.

    Example:
      >>> params = sonew_compiled.load_weights("sonew-run", jax.eval_shape(init, jax.random.key(0)))
    """
    specs, _ = _tensors(like, state)
    arrays = read_weights(path, specs, raw=raw)
    if missing := next((spec.name for spec in specs if spec.name not in arrays), ""):
        raise UsageError(f"{path} lacks {missing}: give a checkpoint, or a file of `sonew export`")
    leaves = [jnp.asarray(arrays[spec.name]) for spec in specs]
    count = len(jax.tree.leaves(like))
    params = jax.tree.unflatten(jax.tree.structure(like), leaves[:count])
    if state is None:
        return params
    return params, jax.tree.unflatten(jax.tree.structure(state), leaves[count:])


def _tensors(params: Any, state: Any) -> tuple[list[TensorSpec], list[Any]]:
    """The tensors of both trees as a manifest has them, and their leaves."""
    trees = {Role.PARAMETER: params} if state is None else {Role.PARAMETER: params, Role.MODEL_STATE: state}
    specs: list[TensorSpec] = []
    found: list[Any] = []
    for role, tree in trees.items():
        for name, leaf in zip(names_of({role.root: tree}), jax.tree.leaves(tree), strict=True):
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise UsageError(f"{name} is {type(leaf).__name__}, not an array; leave it out, as equinox.filter does")
            specs.append(TensorSpec(name=name, shape=tuple(leaf.shape), dtype=jnp.dtype(leaf.dtype).name, role=role))
            found.append(leaf)
    return specs, found
