"""Functions that run a JAX function through parts of the compiler."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.runtime import open_device


@pytest.fixture(scope="session", autouse=True)
def _single_threaded_compiler() -> Iterator[None]:
    """Has IREE compile in one thread, as each core has a test process; the code is the same.

    Its threads cost a twelfth of the processor time in waiting for each other.
    """
    from sonew_compiled.lowering import iree

    def run(command: Sequence[str], **options: Any) -> Any:
        return run_to_end([*command, "--mlir-disable-threading"], **options)

    run_to_end = iree.run_to_end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(iree, "run_to_end", run)
        yield


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


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """Keeps what the compiler has made of a module, for tests that compile the same ones again and again."""
    from sonew_compiled.lowering import lower
    from sonew_compiled.lowering.iree import lower_iree

    kept: dict[tuple[bytes, object], bytes] = {}

    def kept_or_made(stablehlo: bytes, target: Any, *, what: str) -> bytes:
        key = stablehlo, target
        if key not in kept:
            kept[key] = lower_iree(stablehlo, target, what=what)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower, "lower_iree", kept_or_made)
        yield


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
