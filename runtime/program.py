"""A bundle's executable loaded on a device: functions called with buffers bound by name.

IREE's bindings may raise any exception, such as an `IndexError` for a status of that name. Each is taken as an error of
the device or of the bundle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import iree.runtime as rt
import numpy as np

from sonew_compiled.contract import TRAIN_STEP, Role, path_in_tree
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.bundle import Bundle, as_bundle, choose_target
from sonew_compiled.runtime.device import Buffer, Device, as_device, first_error
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import FunctionSpec, Manifest, TargetSpec, TensorSpec
from sonew_compiled.runtime.trial import try_apart
from sonew_compiled.runtime.versions import check_versions

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Function:
    """An export with everything that its calls need, prepared once."""

    handle: Any
    inputs: tuple[str, ...]
    outputs: tuple[tuple[int, str], ...]


class Program:
    """A loaded executable; made by `Program.load`. Not for use by two threads at once.

    Attributes:
      bundle: the bundle of the executable.
      device: the device that runs it.
      target: the chosen executable.
    """

    def __init__(self, bundle: Bundle, device: Device, target: TargetSpec, context: Any, module: Any) -> None:
        self.bundle = bundle
        self.device = device
        self.target = target
        self._context = context
        self._functions = {
            name: _lookup(bundle, target, module, name, spec) for name, spec in bundle.manifest.functions.items()
        }
        # Those that the executable has: of a field, an executable may have the functions for some dtypes or for none.
        found = {name: module.lookup_function(name) for name in bundle.manifest.takes}
        self._takes = {name: handle for name, handle in found.items() if handle is not None}
        self._batch_fields = {
            name: {path_in_tree(spec.name, Role.BATCH): spec for spec in function.inputs if spec.role == Role.BATCH}
            for name, function in self.manifest.functions.items()
        }

    def __repr__(self) -> str:
        return f"Program({self.target.name} of {self.bundle.path} on {self.device.name})"

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @classmethod
    def load(cls, bundle: Bundle | str | Path, device: Device | str | None = None) -> Program:
        """Loads the first executable of the bundle that the device can run, after checking its hash.

        Code that was not made on this machine, nor signed by a trusted key, is tried in a process of its own first.

        Args:
          bundle: an open bundle, or the path of one.
          device: an open device, or a name of one as `open_device` takes it.

        Raises:
          UsageError: there is no such bundle, or no such device.
          SonewError: the bundle has no code for the device, was made by a newer compiler than this runtime, its
            executable is damaged, or the device does not take it.
        """
        started = time.perf_counter()
        bundle, device = as_bundle(bundle), as_device(device)
        check_versions(bundle)
        try_apart(bundle, device)
        target = choose_target(bundle, device.name, device.driver, device.description)
        path = bundle.path / target.file
        # Read, not mapped: a mapped file that somebody writes to or truncates ends the process, and IREE's `mmap` opens
        # the file for writing.
        content = bundle.read(target.file)
        try:
            instance = rt.VmInstance()
            module = rt.VmModule.copy_buffer(instance, content)
            context = rt.VmContext(instance, [rt.create_hal_module(instance, device.hal), module])
        except Exception as error:
            raise SonewError(
                f"{path} cannot be loaded on device {device.name}: {first_error(error)}; compile the bundle again with "
                "`sonew compile` or choose another --device"
            ) from None
        seconds = time.perf_counter() - started
        _LOG.debug("loaded %s on %s (%s) in %.2f s", path, device.name, device.description, seconds)
        return cls(bundle, device, target, context, module)

    def call(self, name: str, buffers: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Calls a function and waits for it.

        Args:
          name: a function of the manifest.
          buffers: the function's inputs by name; others are ignored. The result of the same name overwrites a donated
            input, and must be used in its place.

        Returns:
          The results by name.

        Raises:
          SonewError: the device failed.
        """
        function = self._functions[name]
        results = self._invoke(name, function.handle, [buffers[key] for key in function.inputs], len(function.outputs))
        return {key: results.get_as_object(index, rt.HalBufferView) for index, key in function.outputs}

    def take(self, name: str, data: Buffer, indices: Buffer) -> Buffer:
        """A field of a batch from a data set on the device.

        Args:
          name: the function for the dtypes and the shape, as `sonew_compiled.contract.takes_of` names it.
          data: the examples, a matrix with a row for each.
          indices: the numbers of the batch's examples, int32, which must be rows.

        Raises:
          SonewError: the device failed.
        """
        return self._invoke(name, self._takes[name], [data, indices], 1).get_as_object(0, rt.HalBufferView)

    def has_take(self, name: str) -> bool:
        """Whether the executable has the function of this name for `take`."""
        return name in self._takes

    def _invoke(self, name: str, handle: Any, given: Sequence[Buffer], count: int) -> Any:
        """The list of the results of a function, which are `count`."""
        self.device.check_process()
        arguments = rt.VmVariantList(len(given))
        for buffer in given:
            arguments.push_ref(buffer)
        results = rt.VmVariantList(count)
        try:
            self._context.invoke(handle, arguments, results)
        except Exception as error:
            raise SonewError(
                f"{name} of {self.bundle.path} failed on device {self.device.name}: {first_error(error)}"
            ) from None
        assert len(results) == count, (name, len(results))
        return results

    def has(self, name: str) -> bool:
        """Whether the bundle has the function."""
        return name in self._functions

    def batch_fields(self, function: str) -> Mapping[str, TensorSpec]:
        """The fields of a batch that a function reads; none if the bundle has no such function."""
        return self._batch_fields.get(function, {})

    def upload_batch(self, batch: Mapping[str, np.ndarray], *, function: str = TRAIN_STEP) -> dict[str, Buffer]:
        """Copies the fields of a batch that the function reads to the device.

        Args:
          batch: by field name, as `Manifest.batch` has them.
          function: `train_step`, `gradients`, `eval_step` or `predict`.

        Returns:
          The function's inputs by name, such as `batch/image`.

        Raises:
          UsageError: a field is missing, or its shape or dtype is not the one that was compiled.
        """
        return {
            spec.name: self.upload(spec, _checked(field, batch, spec))
            for field, spec in self._batch_fields[function].items()
        }

    def upload(self, spec: TensorSpec, array: np.ndarray) -> Buffer:
        """Copies an array of the shape and dtype of a tensor of the manifest to the device."""
        stored = self.target.stored_as.get(spec.dtype)
        return self.device.upload(_packed(array, as_dtype(stored)) if stored else array)

    def download(self, spec: TensorSpec, buffer: Buffer) -> np.ndarray:
        """Copies a tensor of the manifest to a new array."""
        return self.device.download(buffer, spec.dtype, spec.shape)

    def memory(self, spec: TensorSpec, buffer: Buffer) -> np.ndarray | None:
        """A tensor of the manifest in the device's own memory; None if the host cannot reach it, or not as it is."""
        stored = self.target.stored_as.get(spec.dtype)
        return None if stored else self.device.memory(buffer, spec.dtype, spec.shape)

    def view(self, spec: TensorSpec, buffer: Buffer) -> np.ndarray:
        """A tensor of the manifest in the device's own memory where the host can reach it, or else a copy."""
        array = self.memory(spec, buffer)
        return self.download(spec, buffer) if array is None else array


def _checked(field: str, batch: Mapping[str, np.ndarray], spec: TensorSpec) -> np.ndarray:
    array = batch.get(field)
    if array is None:
        raise UsageError(
            f"the batch has no field {field!r}, which the bundle reads: it has {', '.join(batch) or 'none'}"
        )
    if array.shape != spec.shape or array.dtype != as_dtype(spec.dtype):
        raise UsageError(
            f"the batch's {field!r} is {array.dtype}{list(array.shape)} where the bundle takes "
            f"{spec.dtype}{list(spec.shape)}: convert it, or compile with another --batch-size"
        )
    return array


def _packed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The array's bytes as a vector of a wider dtype, with zeros to its end."""
    content = np.frombuffer(array.tobytes(), np.uint8)
    return np.pad(content, (0, -content.size % dtype.itemsize)).view(dtype)


def _lookup(bundle: Bundle, target: TargetSpec, module: Any, name: str, spec: FunctionSpec) -> _Function:
    handle = module.lookup_function(name)
    if handle is None:
        raise SonewError(
            f"{bundle.path / target.file} lacks the function {name!r} that the manifest lists: "
            "compile the bundle again with `sonew compile`"
        )
    return _Function(
        handle=handle,
        inputs=tuple(tensor.name for tensor in spec.inputs),
        outputs=tuple((index, tensor.name) for index, tensor in enumerate(spec.outputs)),
    )
