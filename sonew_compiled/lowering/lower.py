"""One executable of a bundle: the module adapted to its target, compiled, and described for the manifest."""

from __future__ import annotations

from jaxlib.mlir import ir

from sonew_compiled import passes
from sonew_compiled.errors import UsageError
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.limits import why_not_computed
from sonew_compiled.lowering.registers import kernel_figures
from sonew_compiled.lowering.targets import Target, resolve_target, target_names
from sonew_compiled.lowering.tpu import lower_tpu
from sonew_compiled.runtime.manifest import FunctionSpec, KernelSpec, TargetSpec, TensorSpec, TpuFunctionSpec


def adapt(stablehlo: bytes, target: Target, *, what: str) -> bytes:
    """The module after the passes of the target.

    Args:
      stablehlo: the portable artifact that every target shares.
      target: the target to compile for.
      what: names the module in errors, such as `autoencoder with tridiag-sonew`.

    Raises:
      UsageError: the target cannot compute it; the message names one that can.
    """
    adapted, reason = _adapted(stablehlo, target)
    if not reason:
        return adapted
    others = sorted(target_names(), key=lambda name: name.partition(":")[0] != target.family)
    for other in map(resolve_target, others):
        if not _adapted(stablehlo, other)[1]:
            raise UsageError(f"target {target.name} cannot do {what}: {reason}; the nearest that can is {other.name}")
    raise UsageError(f"target {target.name} cannot do {what}: {reason}; no target can")


def lower(stablehlo: bytes, target: Target, *, shared: bytes, what: str) -> tuple[bytes, TargetSpec]:
    """Compiles an adapted module, and describes the executable for the manifest.

    Args:
      stablehlo: the module after `adapt`.
      target: the target to compile for.
      shared: the module before `adapt`.
      what: names the module in errors.

    Raises:
      SonewError: the compiler refused it.
    """
    kernels: tuple[KernelSpec, ...] = ()
    programs: tuple[TpuFunctionSpec, ...] = ()
    if target.compiler == "libtpu":
        executable, programs = lower_tpu(stablehlo, target, what=what)
    else:
        executable = lower_iree(stablehlo, target, what=what)
        kernels = kernel_figures(executable)
    spec = TargetSpec(
        **target.needs(),
        file=target.file,
        stored_as=_stored_as(shared, stablehlo),
        kernels=kernels,
        programs=programs,
    )
    return executable, spec


def function_specs(module: ir.Module) -> dict[str, FunctionSpec]:
    """The exports of a flat module as the manifest describes them."""

    def specs(values: tuple[passes.Value, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=value.name, shape=value.shape, dtype=value.dtype, role=value.role) for value in values
        )

    return {
        name: FunctionSpec(inputs=specs(each.inputs), outputs=specs(each.outputs))
        for name, each in passes.signatures(module).items()
    }


def _adapted(stablehlo: bytes, target: Target) -> tuple[bytes, str]:
    """The module for the target, and the reason why the target cannot compute it; empty if it can."""
    module = passes.from_portable_artifact(stablehlo)
    if target.passes:
        passes.run_pipeline(module, [passes.parse_pass(each) for each in target.passes])
        stablehlo = passes.to_bytes(module)
    return stablehlo, why_not_computed(module, target)


def _stored_as(shared: bytes, adapted: bytes) -> dict[str, str]:
    """The dtypes of arguments and results that the target's passes have replaced, each with its replacement."""
    if shared == adapted:
        return {}
    before, after = (passes.signatures(passes.from_bytes(each)) for each in (shared, adapted))
    values = (
        zip((*before[name].inputs, *before[name].outputs), (*after[name].inputs, *after[name].outputs), strict=True)
        for name in before
    )
    return {had.dtype: has.dtype for pairs in values for had, has in pairs if had.dtype != has.dtype}
