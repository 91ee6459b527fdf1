"""The functions of a bundle on a TPU, through JAX: IREE has no driver for TPUs."""

from __future__ import annotations

import importlib.metadata
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.runtime.bundle import Bundle, open_bundle
from sonew_compiled.runtime.manifest import TargetSpec

if TYPE_CHECKING:
    import jax

# An executable is only for the releases that made it.
_PACKAGES = ("jaxlib", "libtpu")


def load_tpu_program(bundle: str | Path, function: str, *, target: str = "tpu") -> Callable[..., tuple[jax.Array, ...]]:
    """Loads a function of a bundle on the first TPU of this machine. Needs `jax[tpu]`.

    JAX unpickles the executable, so load only bundles from a source that you trust.

    Args:
      bundle: a bundle compiled with `--target tpu`.
      function: `init`, `train_step`, `eval_step` or `predict`.
      target: the generation of the TPU: `tpu:v5e`, which `tpu` means, `tpu:v4` or `tpu:v6e`.

    Returns:
      A function of arrays that returns a tuple of arrays: the manifest's `inputs` and `outputs`, in that order, with
      their shapes and dtypes. `train_step` takes over the buffers of its state argument.

    Raises:
      UsageError: there is no such bundle, target or function.
      SonewError: the bundle has no code for the target or is damaged, there is no TPU, or it refuses the code.

    Example:
      >>> init = sonew_compiled.load_tpu_program("ae.bundle", "init")  # doctest: +SKIP
      >>> state = init(jax.numpy.int32(0))  # doctest: +SKIP
    """
    wanted = resolve_target(target)
    if wanted.compiler != "libtpu":
        raise UsageError(f"target {target!r} is not a TPU's; give tpu:v5e, tpu:v4 or tpu:v6e, or train by `sonew run`")
    opened = open_bundle(bundle)
    functions = opened.manifest.functions
    if function not in functions:
        raise UsageError(f"{opened.path} has no function {function!r}; it has {', '.join(functions)}")
    found = next((each for each in opened.manifest.targets if each.name == wanted.name), None)
    if found is None:
        raise SonewError(
            f"{opened.path} has no code for {wanted.name}: it holds "
            f"{', '.join(each.name for each in opened.manifest.targets) or 'no target'}; "
            f"add it with `sonew compile --target {wanted.name}`"
        )
    device = _first_tpu()
    payload = _payload(opened, found, function)

    import jax
    from jax.experimental import serialize_executable

    spec = functions[function]
    inputs = jax.tree.structure((tuple(range(len(spec.inputs))), {}))
    outputs = jax.tree.structure(tuple(range(len(spec.outputs))))
    try:
        program: Callable[..., tuple[jax.Array, ...]] = serialize_executable.deserialize_and_load(
            payload, inputs, outputs, backend=device.client, execution_devices=[device]
        )
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise SonewError(
            f"{found.file} of {opened.path} cannot be loaded on {device.device_kind}: {line[:300]}; it was made with "
            f"{_versions(opened.manifest.versions)}, and here are {_versions(_installed())}"
        ) from error
    return program


def _first_tpu() -> jax.Device:
    try:
        import jax

        return jax.devices("tpu")[0]
    except ModuleNotFoundError as error:
        raise SonewError(f"loading code on a TPU needs {error.name}: pip install 'jax[tpu]'") from None
    except RuntimeError:
        raise SonewError(
            "JAX finds no TPU here: run this where one is, with 'jax[tpu]' installed and JAX_PLATFORMS unset"
        ) from None


def _payload(bundle: Bundle, target: TargetSpec, function: str) -> bytes:
    content = bundle.read(target.file)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(f"{function}.xla")
    except (zipfile.BadZipFile, KeyError) as error:
        path = bundle.path / target.file
        raise SonewError(f"{path} has no executable of {function} ({error}); compile the bundle again") from None


def _installed() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "(none)"
    return found


def _versions(versions: Mapping[str, str]) -> str:
    return " and ".join(f"{package} {versions.get(package, '(unknown)')}" for package in _PACKAGES)
