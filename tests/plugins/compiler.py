"""Functions that run a JAX function through parts of the compiler."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.runtime import open_device


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
    """Calls a JAX function through the whole compiler, several times on all threads."""
    import iree.runtime as rt
    import jax

    from sonew_compiled import passes
    from sonew_compiled.lowering.iree import lower_iree
    from sonew_compiled.lowering.lower import adapt
    from sonew_compiled.lowering.targets import pin_host, resolve_target
    from sonew_compiled.trace import trace_function

    def run(
        function: Callable[..., Any], *arguments: Any, target: str = "cpu", precision: str = "f32", times: int = 1
    ) -> list[Any]:
        module = passes.parse(trace_function(function, arguments))
        passes.run_pipeline(module, passes.pipeline(passes.precision_policy(precision)))
        chosen = pin_host(resolve_target(target))
        code = lower_iree(adapt(passes.to_portable_artifact(module), chosen, what="a test"), chosen, what="a test")
        device, instance = open_device("local-task"), rt.VmInstance()
        loaded = rt.VmModule.copy_buffer(instance, code)
        context = rt.VmContext(instance, [rt.create_hal_module(instance, device.hal), loaded])
        shapes, tree = jax.tree.flatten(jax.eval_shape(function, *arguments))
        given = rt.VmVariantList(len(arguments))
        for each in arguments:
            given.push_ref(device.upload(np.asarray(each)))
        gotten = []
        for _ in range(times):
            results = rt.VmVariantList(len(shapes))
            context.invoke(loaded.lookup_function("predict"), given, results)
            buffers = [results.get_as_object(index, rt.HalBufferView) for index in range(len(shapes))]
            arrays = [device.download(b, s.dtype, s.shape) for b, s in zip(buffers, shapes, strict=True)]
            gotten.append(tree.unflatten(arrays))
        return gotten

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
