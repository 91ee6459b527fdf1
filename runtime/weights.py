"""Weights in files: a model's parameters and the state that its evaluation reads, without the optimizer's state.

`.safetensors` and `.npz` files name a parameter as the model does, `layer0/kernel`, or as bundles and checkpoints do,
`params/layer0/kernel`. The tensors of the model's state are named `state/...` in both.

The weights of a checkpoint of a run with averages are the averages, with which the model was evaluated, unless a caller
asks for the raw parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np

from sonew_compiled.contract import Role, average_name, parameter_name, path_in_tree
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.checkpoint import find_checkpoint, first_difference, first_not_finite
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import Manifest, TensorSpec
from sonew_compiled.runtime.numpy_files import npz_bytes, read_numpy
from sonew_compiled.runtime.shown import shown
from sonew_compiled.runtime.tensorfile import read_tensors, write_atomically, write_tensors

NPZ = ".npz"
SUFFIXES = (".safetensors", NPZ)

# Files may hold these in place of each other: a policy stores in few bits what a model has in float32.
_FLOATS = tuple(np.dtype(each) for each in (np.float32, np.float16, ml_dtypes.bfloat16))


def save_parameters(path: str | Path, parameters: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, which `--params` and `load_parameters` read.

    Args:
      path: ends in `.npz` for NumPy's format, which has no bfloat16: such arrays are written as float32, exactly. Any
        other name is of a safetensors file.
      parameters: such as those of `TrainingState.parameters()`.

    Raises:
      SonewError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != NPZ:
        write_tensors(path, parameters)
        return
    arrays = {name: np.asarray(array) for name, array in parameters.items()}
    plain = {name: a.astype(np.float32) if a.dtype == ml_dtypes.bfloat16 else a for name, a in arrays.items()}
    write_atomically(path, [npz_bytes(plain)])


def load_parameters(path: str | Path, specs: tuple[TensorSpec, ...], *, raw: bool = False) -> dict[str, np.ndarray]:
    """Reads a model's parameters from a file of `save_parameters` or of another program, or from a checkpoint.

    Args:
      path: a `.safetensors` or `.npz` file, a checkpoint, or a run's folder for its latest one. Tensors under other
        roots than `params/` are ignored in a file that has this root.
      specs: the parameters, `Manifest.parameters`.
      raw: whether to take the parameters of a checkpoint that has averages of them.

    Returns:
      The parameters by the names of `specs`, in their dtypes: float32, float16 and bfloat16 are rounded to each other.

    Raises:
      UsageError: there is no such file.
      SonewError: the file is truncated or corrupt, or its parameters are not those of the model.
    """
    path, arrays = _read(path, raw=raw)
    return _parameters(path, arrays, specs, others=())


def load_weights(path: str | Path, manifest: Manifest, *, raw: bool = False) -> dict[str, np.ndarray]:
    """The parameters of a file, as `load_parameters` reads them, and the model's state if the file holds it.

    Args:
      path: as for `load_parameters`.
      manifest: the manifest of the bundle that takes them.
      raw: as for `load_parameters`.

    Raises:
      UsageError: there is no such file.
      SonewError: as `load_parameters`, or the file holds a part of the model's state, or another model's.
    """
    return read_weights(path, manifest.state, raw=raw)


def read_weights(path: str | Path, specs: Sequence[TensorSpec], *, raw: bool = False) -> dict[str, np.ndarray]:
    """The same, for the parameters and the model's state among these tensors."""
    path, arrays = _read(path, raw=raw)
    kept = tuple(spec for spec in specs if spec.role == Role.MODEL_STATE)
    parameters = tuple(spec for spec in specs if spec.role == Role.PARAMETER)
    weights = _parameters(path, arrays, parameters, others=[spec.name for spec in kept])
    if not any(spec.name in arrays for spec in kept):
        return weights
    state = {spec.name: arrays[spec.name] for spec in kept if spec.name in arrays}
    return weights | _checked(path, state, kept, what="the state of this model")


def own_names(specs: Sequence[TensorSpec]) -> dict[str, str]:
    """The model's own names of parameters, `layer0/kernel` for `params/layer0/kernel`, and those of its state.

    A model with a parameter of its own called `state/...` keeps the names of the bundle, so that no two are the same.
    """
    names = {
        spec.name: path_in_tree(spec.name, Role.PARAMETER) if spec.role == Role.PARAMETER else spec.name
        for spec in specs
    }
    return names if len(set(names.values())) == len(names) else {name: name for name in names}


def as_parameters(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors with averages as the parameters that they stand for, by name and role, in their own dtypes."""
    return tuple(
        replace(spec, name=parameter_name(spec.name), role=Role.PARAMETER) if spec.role == Role.AVERAGE else spec
        for spec in specs
    )


def _read(path: str | Path, *, raw: bool) -> tuple[Path, dict[str, np.ndarray]]:
    path = Path(path)
    if path.suffix != NPZ:
        if path.is_dir() and path.suffix not in SUFFIXES:
            path = find_checkpoint(path)
        tensors = read_tensors(path)
        averages = {name: average for name in tensors if (average := tensors.get(average_name(name))) is not None}
        return path, tensors if raw else {**tensors, **averages}
    if not path.exists():
        raise UsageError(f"there is no file {path}: check the name")
    arrays = read_numpy(path)[0]
    if None in arrays:
        raise SonewError(f"{path} is a .npy file under another name: save the weights by name, with numpy.savez")
    return path, {str(name): array for name, array in arrays.items()}


def _parameters(
    path: Path, arrays: Mapping[str, np.ndarray], specs: tuple[TensorSpec, ...], *, others: Sequence[str]
) -> dict[str, np.ndarray]:
    """The parameters among the arrays of a file; `others` may be there besides them under the model's own names."""
    own = {spec.name: path_in_tree(spec.name, Role.PARAMETER) for spec in specs}
    by_full_names = {name: array for name, array in arrays.items() if Role.PARAMETER.holds(name)}
    if own.keys() <= by_full_names.keys() or not arrays.keys() & set(own.values()):
        return _checked(path, by_full_names, specs, what="this model's parameters")
    renamed = tuple(replace(spec, name=own[spec.name]) for spec in specs)
    rest = {name: array for name, array in arrays.items() if name not in others}
    found = _checked(path, rest, renamed, what="this model's parameters")
    return {spec.name: found[own[spec.name]] for spec in specs}


def _checked(
    path: Path, arrays: Mapping[str, np.ndarray], specs: tuple[TensorSpec, ...], *, what: str
) -> dict[str, np.ndarray]:
    dtypes = {spec.name: as_dtype(spec.dtype) for spec in specs}
    rounded = {
        name: _rounded(array, dtypes[name]) if {array.dtype, dtypes.get(name)} <= set(_FLOATS) else array
        for name, array in arrays.items()
    }
    difference = first_difference(rounded, specs)
    if difference:
        raise SonewError(f"{path} does not hold {what}: {difference}; give a file made for the model")
    if name := first_not_finite(arrays):
        raise SonewError(f"{path} has NaN or infinity in {shown(name)}; give parameters that are finite")
    if name := first_not_finite(rounded):
        raise SonewError(
            f"{path} has values in {shown(name)} that are too large for {rounded[name].dtype}, in which the bundle "
            "stores it; compile with another --precision"
        )
    return rounded


def _rounded(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # what overflows is refused by name
        return array.astype(dtype, copy=False)
