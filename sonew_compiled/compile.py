"""From a model and an optimizer to a bundle: trace, passes, lower, write."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled import passes
from sonew_compiled.background import in_background
from sonew_compiled.bundle_writer import write_bundle
from sonew_compiled.check import Call, Reference, check_executables, no_mean, why_not_checked
from sonew_compiled.contract import BUCKET, PARAMETERS_FILE, STABLEHLO_FILE, Role, path_in_tree
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.held import Held
from sonew_compiled.host_init import DEVICE, HOST, PLACES, constant_init
from sonew_compiled.lowering.lower import adapt, function_specs, lower
from sonew_compiled.lowering.registers import ptxas_version
from sonew_compiled.lowering.targets import Target, find_ptxas, pin_host, resolve_targets, why_not_compiled
from sonew_compiled.micro_batches import add_halves, micro_batches
from sonew_compiled.model_functions import ModelFunctions
from sonew_compiled.optimizer import optimizer_factory, statistics_dtype, with_step_settings
from sonew_compiled.presets import OptimizerSettings, record_of, runtime_settings_of
from sonew_compiled.requirements import names_of
from sonew_compiled.runtime.limits import check_setting, check_start
from sonew_compiled.runtime.manifest import FileSpec, Manifest, possible_takes
from sonew_compiled.runtime.older_bundle import writable_bundle
from sonew_compiled.runtime.tensorfile import tensor_bytes
from sonew_compiled.runtime.trial import remember_made_here
from sonew_compiled.runtime.weights import load_weights
from sonew_compiled.step_settings import StepSettings
from sonew_compiled.trace import OptimizerFactory, trace_training
from sonew_compiled.train_settings import DEFAULT_SCHEDULE, SCHEDULES
from sonew_compiled.weights_in_state import weights_in_state


def compile_training(
    loss: Callable[..., Any],
    init: Callable[[jax.Array], Any],
    optimizer: OptimizerSettings | OptimizerFactory,
    batch: Any,
    *,
    output: str | Path,
    eval_loss: Callable[..., jax.Array] | None = None,
    predict: Callable[..., Any] | None = None,
    metrics: Callable[..., Any] | None = None,
    evaluation_draws: bool = False,
    per_example: bool = True,
    unit: str = "",
    targets: Sequence[str] = ("cpu",),
    model: str = "model",
    learning_rate: float | None = None,
    schedule: str = DEFAULT_SCHEDULE,
    precision: str = "f32",
    runtime_settings: Collection[str] = (),
    step: StepSettings | None = None,
    init_on: str = DEVICE,
    params: str | Path | None = None,
    micro_batch: int | None = None,
    exchange: str = "f32",
    classes: Mapping[str, int] = MappingProxyType({}),
    check: bool = True,
    dump_check: Path | None = None,
    dump_ir: Path | None = None,
    print_ir_after: Collection[str] = (),
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Compiles a training step ahead of time and writes a bundle that trains without JAX.

    Args:
      loss: `loss(params, batch) -> scalar`, any JAX function: the mean over the examples of the batch's leading axis.
        It may take `rng` and `state` by keyword, and returns `(loss, state)` with the latter: docs/reference/models.md.
      init: `init(key) -> params`, any pytree of arrays, from a JAX random key; `(params, state)` where
        the loss takes `state`.
      optimizer: settings as `sonew_compiled.presets.optimizer_settings` gives them, or a function from the learning
        rate (a traced float32 scalar) to an optax transformation, such as `lambda lr: sonew(lr, band=4)`.
      batch: the shapes and dtypes of a batch, a pytree of `jax.ShapeDtypeStruct` that share the leading axis. The
        runtime binds the arrays of a data set to the keys of a dict by name.
      output: the bundle, a directory. An older bundle there is replaced once the new one is complete.
      eval_loss: `eval_loss(params, batch) -> scalar`, the loss in evaluation; it may take `state`. By default `loss`.
      predict: `predict(params, batch) -> arrays`, any tree of them, optional; it may take `state`.
      metrics: `metrics(params, batch) -> {name: one number an example, or (sum, count)}`, reported for both splits; it
        may take `state`.
      evaluation_draws: whether evaluation may use a loss that takes `rng`, by a fixed key.
      per_example: whether the loss is a mean of losses of single examples; else evaluation is of whole batches.
      unit: the unit of the loss in reports.
      targets: the targets to compile for, in the order in which a device should prefer them; see `sonew targets`. "all"
        is every target that this machine can compile for.
      model: the name of the model in the manifest.
      learning_rate: the default of `sonew run`; if it is None, the optimizer settings' own.
      schedule: the default schedule of `sonew run`: one of `sonew_compiled.runtime.SCHEDULES`.
      precision: the policy of storage and computation: "f32", "bf16", "bf16-pure", "bf16-mixed", "f16-mixed" or
        "bf16-sr". The model and the optimizer are always written and traced in float32.
      runtime_settings: the settings of the optimizer that the step takes at every call instead of having them compiled
        in; `presets.runtime_settings_of` names those that can be. Their values in `optimizer` are the defaults.
      step: the settings of the step besides the optimizer: clipping, weight decay, frozen parameters, averaged weights;
        see docs/reference/training-options.md.
      init_on: where `init` runs: "device", for the seed of each run, or "host", once, now, for seed 0; its results
        are then constants of the code. See `sonew_compiled/host_init.py`.
      params: a file of initial parameters to put in the bundle, as `runtime.load_weights` reads it; by default `init`
        makes them on the device.
      micro_batch: the examples to work on at a time; it must divide the batch size. It adds the functions with which
        one worker or several work on a batch in parts; see docs/how-to/workers.md.
      exchange: the type to which gradients of micro-batches are rounded before they are summed: "f32", or "bf16" for
        workers on a slow network.
      classes: the number of classes of each label field of the batch. The runtime refuses labels that are not from 0 to
        one less.
      check: whether to compare the code that this machine can run with JAX before the bundle is written; see
        docs/concepts/check.md.
      dump_check: a directory for the inputs and the results if they differ.
      dump_ir: a directory for the module after each pass.
      print_ir_after: passes after which the module is printed on stderr, or "all".
      progress: called with a line for each step of the work.

    Returns:
      The manifest of the bundle.

    Raises:
      UsageError: a target, the precision, the batch, the loss, the parameters or the learning rate is not accepted.
      SonewError: a target's compiler is not installed or refused the module, the code disagrees with JAX, or the bundle
        cannot be written.

    Example:
      >>> import sonew_compiled
      >>> from sonew_compiled.models import autoencoder
      >>> manifest = sonew_compiled.compile_training(
      ...     autoencoder.loss, autoencoder.init, lambda lr: sonew_compiled.sonew(lr, b2=0.95, eps=1e-7),
      ...     autoencoder.batch(100), output="autoencoder.bundle", learning_rate=1e-2)
    """
    if init_on not in PLACES:
        raise UsageError(f"--init is {init_on!r}: give {' or '.join(PLACES)}")
    functions_of_model: dict[str, Any] = {
        "init": constant_init(init) if init_on == HOST else init,
        "loss": loss,
        "eval_loss": eval_loss,
        "predict": predict,
        "metrics": metrics,
        "evaluation_draws": evaluation_draws,
        "per_example": per_example,
    }
    if micro_batch is None and exchange != "f32":
        raise UsageError(f"--exchange {exchange} applies to micro-batches only: give --micro-batch too or leave it out")
    made = ModelFunctions(**functions_of_model)
    more = "state" if made.has_state else "rng" if made.takes_rng else ""
    if micro_batch is not None and (more or not per_example):
        why = f"takes {more}, which micro-batches cannot share" if more else "is of whole batches (per_example=False)"
        raise UsageError(f"the loss {why}; leave out --micro-batch")
    if isinstance(optimizer, OptimizerSettings):
        if more and record_of(optimizer.name).needs_loss:
            raise UsageError(
                f"{optimizer.name} differentiates the loss itself, which takes {more}; choose another optimizer"
            )
        _check_runtime_settings(runtime_settings, optimizer)
        factory = optimizer_factory(optimizer, loss=loss, batch=batch)
        described = {key: value for key, value in optimizer.to_json().items() if key != "learning_rate"}
        learning_rate = optimizer.learning_rate if learning_rate is None else learning_rate
    else:
        if runtime_settings:
            raise UsageError("runtime_settings are given and the optimizer is a function; give an OptimizerSettings")
        factory = optimizer
        described = {"name": getattr(optimizer, "__name__", "custom").replace("<lambda>", "custom")}
    step = step or StepSettings()
    factory = with_step_settings(factory, step, described["name"])
    if learning_rate is None:
        raise UsageError("learning_rate is None and the optimizer is a function; give the default learning rate")
    if not 0 <= learning_rate < math.inf:
        raise UsageError(f"learning_rate is {learning_rate}; give zero or a positive number")
    if schedule not in SCHEDULES:
        raise UsageError(f"schedule is {schedule!r}; give one of {', '.join(SCHEDULES)}")
    chosen = resolve_targets(targets)
    for target in chosen:
        if reason := why_not_compiled(target):
            raise SonewError(f"this machine lacks the compiler for target {target.name}: {reason}")
    resolved = [pin_host(target) for target in chosen]
    policy = passes.precision_policy(precision)
    _check_batch(batch)
    parts = (
        None
        if micro_batch is None
        else micro_batches(batch, micro_batch, factory, str(described["name"]), exchange=exchange)
    )
    destination = writable_bundle(Path(output))

    progress(f"trace {model} with {described['name']}")
    trace = partial(
        trace_training,
        **functions_of_model,
        optimizer=factory,
        runtime_settings=runtime_settings,
        state_dtype=policy.state_dtype,
        arithmetic=policy.arithmetic,
        freeze=step.freeze,
        ema=step.ema,
    )
    with statistics_dtype(policy.state_dtype):
        traced = trace(batch=batch, loss_scale=policy.loss_scale)
        halves = None if parts is None else trace(batch=parts.batch).text
    progress("run the passes")
    module = passes.parse(traced.text)
    passes.run_pipeline(module, passes.pipeline(policy), dump_dir=dump_ir, print_ir_after=print_ir_after)
    if parts is not None and halves is not None:
        add_halves(module, halves, policy, parts, dump_ir=dump_ir)
    functions = function_specs(module)
    passes.run_pipeline(module, [passes.parse_pass("strip-roles")])
    stablehlo = passes.to_portable_artifact(module)

    manifest = Manifest(
        model=model,
        optimizer=described,
        precision=policy.name,
        defaults={"learning_rate": learning_rate, "schedule": schedule},
        versions=_versions(resolved),
        functions=functions,
        targets=(),
        classes=_classes(classes, batch),
        setting_limits=traced.setting_limits,
        unit=unit,
        starts_from=weights_in_state(made, factory, Held(step.freeze), averages=step.ema is not None),
        exchange=exchange,
        step=step.to_json(),
        init=init_on,
        bucket_reads=passes.ranges_read(module, BUCKET),
        takes=possible_takes(functions) if any(target.compiler == "iree" for target in resolved) else (),
    )
    for name in manifest.runtime_settings:
        check_setting(manifest, name, manifest.optimizer[name])
    files = {STABLEHLO_FILE: stablehlo}
    if params is not None:
        check_start(manifest, given=str(params))
        files[PARAMETERS_FILE] = tensor_bytes(load_weights(params, manifest))
    what = f"{model} with {described['name']}"
    compiled = []
    # JAX computes the expected results while the passes run here and IREE's compiler runs in a process of its own.
    reference = Reference(manifest=manifest, stablehlo=stablehlo, traced=traced.references)
    tried = check and any(not why_not_checked(target, manifest, first=True) for target in resolved)
    expected: Future[list[Call]] | None = in_background(reference.calls) if tried else None
    try:
        adapted = [adapt(stablehlo, target, what=what) for target in resolved]
        for target, source in zip(resolved, adapted, strict=True):
            progress(f"compile for {target.name}" + (f" ({target.cpu})" if target.cpu else ""))
            files[target.file], spec = lower(source, target, shared=stablehlo, what=what)
            compiled.append(spec)
    except Exception:
        # An error waits for the background call to end; Ctrl-C does not.
        wait([expected] if expected else [])
        raise
    specs = {name: FileSpec.of(data) for name, data in files.items()}
    complete = replace(manifest, targets=tuple(compiled), files=specs)
    if check:
        program = check_executables(files, complete, expected, dump=dump_check, progress=progress)
        by_example = per_example and eval_loss is None and not made.takes_rng
        if program and expected and by_example and (found := no_mean(program, expected.result())):
            progress(
                f"note: the loss of a batch, {found[0]:.4g}, is not the mean of those of its examples, {found[1]:.4g}, "
                "which evaluation reports; give the model an eval_loss, or per_example=False for a loss of whole "
                "batches"
            )
    write_bundle(destination, files, complete.to_json())
    remember_made_here(complete)
    return complete


def _check_runtime_settings(names: Collection[str], optimizer: OptimizerSettings) -> None:
    accepted = runtime_settings_of(optimizer.name)
    for name in names:
        if name not in accepted:
            raise UsageError(
                f"{name} of {optimizer.name} cannot be a runtime setting; give {', '.join(accepted) or 'none'}"
            )


def _classes(classes: Mapping[str, int], batch: Any) -> dict[str, int]:
    names = [path_in_tree(name, Role.BATCH) for name in names_of({Role.BATCH.root: batch})]
    fields = dict(zip(names, jax.tree.leaves(batch), strict=True))
    for name, count in classes.items():
        if name not in fields or not jnp.issubdtype(fields[name].dtype, jnp.integer):
            raise UsageError(f"classes has {name!r}; give integer fields of the batch, which has {', '.join(fields)}")
        if count < 1:
            raise UsageError(f"classes has {count} for {name!r}; give the number of classes, 1 or more")
    return dict(classes)


def _check_batch(batch: Any) -> None:
    for leaf in jax.tree.leaves(batch):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise UsageError(f"the batch holds {leaf!r}; give a jax.ShapeDtypeStruct for every field")
        # Tracing is done without JAX's 64 bits: such a field would silently become one of float32.
        if leaf.dtype in (np.float64, np.complex128):
            raise UsageError(f"the batch has a field of {leaf.dtype}: no target computes in float64; give float32")


def _versions(targets: Sequence[Target]) -> dict[str, str]:
    packages: tuple[str, ...] = ("sonew-compiled", "iree-base-compiler", "jax", "jaxlib", "optax")
    if any(target.compiler == "libtpu" for target in targets):
        packages += ("libtpu",)
    versions = {package: importlib.metadata.version(package) for package in packages}
    ptxas = find_ptxas() if any(target.assembler == "ptxas" for target in targets) else None
    if ptxas is not None:
        versions["ptxas"] = ptxas_version(ptxas)
    return versions | {"stablehlo": passes.stablehlo_version()}
