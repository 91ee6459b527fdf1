"""A bundle for inference alone: the functions that evaluate and predict, with trained weights, compiled anew.

They come from the StableHLO of a bundle that trains, so the model's code is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from sonew_compiled import passes
from sonew_compiled.background import in_background
from sonew_compiled.bundle_writer import write_bundle
from sonew_compiled.check import Reference, check_executables, why_not_checked
from sonew_compiled.contract import EVAL_STEP, PARAMETERS_FILE, PREDICT, STABLEHLO_FILE, Driver
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.lowering.lower import adapt, lower
from sonew_compiled.lowering.targets import pin_host, resolve_targets, why_not_compiled
from sonew_compiled.runtime.bundle import Bundle
from sonew_compiled.runtime.manifest import FORMAT_VERSION, FileSpec, Manifest
from sonew_compiled.runtime.older_bundle import writable_bundle
from sonew_compiled.runtime.tensorfile import tensor_bytes
from sonew_compiled.runtime.trial import remember_made_here
from sonew_compiled.runtime.weights import as_parameters


def export_inference(
    bundle: Bundle,
    weights: Mapping[str, np.ndarray],
    output: str | Path,
    *,
    targets: Sequence[str] = (),
    check: bool = True,
    dump_check: Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Compiles `eval_step` and, where there is one, `predict` of a bundle, and writes them with weights.

    Args:
      bundle: one that trains, or one for inference.
      weights: the parameters and the model's state, as `load_trained` gives them.
      output: the new bundle, a directory. An older bundle there is replaced once the new one is complete.
      targets: as `compile_training` takes them; by default those of the bundle. TPUs have none.
      check: whether to compare the code that this machine can run with what XLA computes of the same StableHLO, before
        the bundle is written; see docs/concepts/check.md.
      dump_check: a directory for the inputs and the results if they differ.
      progress: called with a line for each step of the work.

    Returns:
      The manifest of the new bundle. Its optimizer and its defaults are empty.

    Raises:
      UsageError: a target is not accepted.
      SonewError: the bundle is damaged, a target's compiler is not installed or refused the module, the code computes
        something else, or the new bundle cannot be written.
    """
    manifest = bundle.manifest
    names = list(targets) or [each.name for each in manifest.targets if each.driver != Driver.TPU]
    chosen = [pin_host(target) for target in resolve_targets(names)]
    for target in chosen:
        if target.compiler != "iree":
            raise UsageError(f"target {target.name} has no bundles for inference alone; give another --target")
        if reason := why_not_compiled(target):
            raise SonewError(f"this machine lacks the compiler for target {target.name}: {reason}")
    kept = {
        name: replace(function, inputs=as_parameters(function.inputs))
        for name, function in manifest.functions.items()
        if name in (EVAL_STEP, PREDICT)
    }
    destination = writable_bundle(Path(output))
    if destination.resolve() == bundle.path.resolve():
        raise UsageError(f"{output} is the bundle to export, which the new one would replace: give another output")
    try:
        module = passes.from_portable_artifact(bundle.read(STABLEHLO_FILE))
    except ValueError as error:
        raise SonewError(f"{bundle.path / STABLEHLO_FILE} is no StableHLO that can be read ({error})") from None
    passes.run_pipeline(module, [passes.parse_pass(f"keep-exports:names={'+'.join(kept)}")])
    stablehlo = passes.to_portable_artifact(module)
    files = {STABLEHLO_FILE: stablehlo, PARAMETERS_FILE: tensor_bytes(weights)}
    what = f"{manifest.model} for inference"
    compiled = []
    for target in chosen:
        progress(f"compile for {target.name}" + (f" ({target.cpu})" if target.cpu else ""))
        adapted = adapt(stablehlo, target, what=what)
        files[target.file], spec = lower(adapted, target, shared=stablehlo, what=what)
        compiled.append(spec)
    complete = replace(
        manifest,
        format_version=FORMAT_VERSION,
        optimizer={},
        defaults={},
        functions=kept,
        targets=tuple(compiled),
        files={name: FileSpec.of(data) for name, data in files.items()},
        setting_limits={},
        starts_from={},
        step={},
        takes=(),
    )
    if check:
        reference = Reference(manifest=complete, stablehlo=stablehlo, traced={})
        tried = any(not why_not_checked(target, complete, first=True) for target in compiled)
        expected = in_background(partial(reference.evaluations, weights)) if tried else None
        check_executables(files, complete, expected, dump=dump_check, progress=progress)
    write_bundle(destination, files, complete.to_json())
    remember_made_here(complete)
    return complete
