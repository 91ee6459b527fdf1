"""Functions that run a JAX function through parts of the compiler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sonew_compiled.runtime import list_devices, open_device

if TYPE_CHECKING:
    from jaxlib.mlir import ir


def run_module(
    module: ir.Module, function: str, arguments: Sequence[np.ndarray], device_name: str = "local-task"
) -> list[np.ndarray]:
    """The results of this processor's code for a module that needs no further pass."""
    from sonew_compiled import passes
    from sonew_compiled.lowering.iree import lower_iree
    from sonew_compiled.lowering.targets import pin_host, resolve_target

    code = lower_iree(passes.to_bytes(module), pin_host(resolve_target("cpu")), what="a test")
    (results,) = call(code, function, arguments, device_name)
    return results


def call(
    code: bytes, function: str, arguments: Sequence[np.ndarray], device_name: str, times: int = 1
) -> list[list[np.ndarray]]:
    """The results of each call of a function; unsigned integers are signed ones, as the code's own types are."""
    import iree.runtime as rt

    dtype_of = rt.HalElementType.map_to_dtype
    device, instance = open_device(device_name), rt.VmInstance()
    loaded = rt.VmModule.copy_buffer(instance, code)
    context = rt.VmContext(instance, [rt.create_hal_module(instance, device.hal), loaded])
    given = rt.VmVariantList(len(arguments))
    for each in arguments:
        given.push_ref(device.upload(np.asarray(each)))
    gotten = []
    for _ in range(times):
        results = rt.VmVariantList(16)
        context.invoke(loaded.lookup_function(function), given, results)
        buffers = [results.get_as_object(index, rt.HalBufferView) for index in range(len(results))]
        gotten.append([device.download(each, dtype_of(each.element_type), tuple(each.shape)) for each in buffers])
    return gotten


@pytest.fixture
def float64() -> Iterator[None]:
    """Lets JAX compute float64 arrays in float64, as an oracle needs."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def by_rules() -> Callable[..., Any]:
    """Calls a JAX function that our rules lower and XLA compiles."""
    import jax

    from sonew_compiled.rules import lowering_parameters

    def run(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        traced = jax.jit(lambda *arguments: function(*arguments, **options)).trace(*arguments)
        lowered = traced.lower(lowering_platforms=("cpu",), _private_parameters=lowering_parameters())
        assert "custom_call" not in lowered.as_text()
        # XLA's optimization would take most of the time, for code that runs once.
        return lowered.compile({"xla_backend_optimization_level": 0})(*arguments)

    return run


@pytest.fixture(scope="session")
def on_iree() -> Callable[..., list[Any]]:
    """Calls a JAX function through the whole compiler, several times on all threads, or on a Vulkan device."""
    import jax

    from sonew_compiled import passes
    from sonew_compiled.lowering.iree import lower_iree
    from sonew_compiled.lowering.lower import adapt
    from sonew_compiled.lowering.targets import pin_host, resolve_target
    from sonew_compiled.trace import trace_function

    def run(
        function: Callable[..., Any], *arguments: Any, target: str = "cpu", precision: str = "f32", times: int = 1
    ) -> list[Any]:
        device = target if target == "vulkan" else "local-task"
        if device == "vulkan" and not any(found.name == device for found in list_devices()):
            pytest.skip("there is no Vulkan device here")
        module = passes.parse(trace_function(function, arguments))
        passes.run_pipeline(module, passes.pipeline(passes.precision_policy(precision)))
        chosen = pin_host(resolve_target(target))
        code = lower_iree(adapt(passes.to_portable_artifact(module), chosen, what="a test"), chosen, what="a test")
        shapes, tree = jax.tree.flatten(jax.eval_shape(function, *arguments))
        called = call(code, "predict", arguments, device, times)
        return [
            tree.unflatten(each.view(shape.dtype) for each, shape in zip(results, shapes, strict=True))
            for results in called
        ]

    return run


@pytest.fixture(scope="session")
def autoencoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The autoencoder at full size with the shipped optimizer and batches of 300; not to be changed."""
    from sonew_compiled import compile_training
    from sonew_compiled.models import autoencoder
    from sonew_compiled.presets import optimizer_settings

    path = tmp_path_factory.mktemp("autoencoder") / "ae.bundle"
    compile_training(
        autoencoder.loss,
        autoencoder.init,
        optimizer_settings(),
        autoencoder.batch(300),
        output=path,
        predict=autoencoder.predict,
        model="autoencoder",
        check=False,
    )
    return path
