"""An executable run on this machine's processor, and compared with JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from sonew_compiled.background import in_background
from sonew_compiled.check._compare import Difference, difference, same_bits
from sonew_compiled.check._reference import Arrays, Call
from sonew_compiled.check._takes import wrong_take
from sonew_compiled.contract import MANIFEST_FILE, PARAMETERS_FILE, TRAIN_STEP, UPDATE_COMMON, Driver, Role, is_update
from sonew_compiled.errors import SonewError, counted
from sonew_compiled.lowering.scratch import scratch_folder
from sonew_compiled.runtime import Device, Program, open_bundle, open_device
from sonew_compiled.runtime.bundle import why_not_here
from sonew_compiled.runtime.manifest import FileSpec, Manifest, Needs, TargetSpec, TensorSpec

# A second executable is checked only up to so many parameters times examples: bytecode takes a hundred times as long.
_SMALL = 10**7
# The share of the numbers of a metric that may be anything: whether an example is right can hang on a rounding.
_CHOICES = 0.05
# How often JAX's results are moved further before one is called wrong.
_ROUNDS = 4


def why_not_checked(target: Needs, manifest: Manifest, *, first: bool) -> str:
    """The reason why an executable is not checked here; empty if it is checked.

    Args:
      target: the executable.
      manifest: the bundle's manifest.
      first: whether it is the first executable that this machine runs.
    """
    if target.driver != Driver.LOCAL:
        return f"this machine's processor does not run code for {target.driver}"
    if reason := why_not_here(target, {Driver.LOCAL: ""}):
        return f"its code is {reason}"
    if not first and manifest.parameter_count * manifest.batch_size > _SMALL:
        return "it is the second that this machine runs, and the model is large"
    return ""


def check_executables(
    files: Mapping[str, bytes],
    manifest: Manifest,
    expected: Future[list[Call]] | None,
    *,
    dump: Path | None = None,
    progress: Callable[[str], None],
) -> Program | None:
    """Checks the executables that this machine can run, and says which it cannot.

    The first is tried with all calls, each other one with the first call of each function.

    Args:
      files: the bundle's files by name, those of its targets among them.
      manifest: the bundle's manifest.
      expected: the calls, None if this machine runs no executable; where JAX fails in one of them, nothing is checked.
      dump: as `check_executable` takes it.
      progress: called with a line for each executable.

    Returns:
      The first of them, loaded; None if there is none.

    Raises:
      SonewError: an executable computes something else, or what JAX computes is refused.
    """
    try:
        calls = expected.result() if expected else []
    except SonewError:
        raise
    except Exception as error:
        # XLA has no code for an operation, or the memory does not suffice for both.
        line = next(iter(str(error).strip().splitlines()), "")
        progress(f"not checked: JAX does not run it here ({type(error).__name__}: {line[:200]})")
        return None
    checked = None
    for target in manifest.targets:
        if reason := why_not_checked(target, manifest, first=checked is None):
            progress(f"not checked for {target.name}: {reason}")
            continue
        progress(f"check {target.name} against JAX")
        program = check_executable(files[target.file], target, manifest, calls, dump=dump)
        if checked is None:
            checked = program
            calls = list({call.function: call for call in reversed(calls)}.values())[::-1]
    return checked


def check_executable(
    executable: bytes, target: TargetSpec, manifest: Manifest, calls: Sequence[Call], *, dump: Path | None = None
) -> Program:
    """Makes each call on all cores, and compares the results with JAX's.

    The last call of each function is made twice, and once more after all others.

    Args:
      executable: the code.
      target: its target.
      manifest: the bundle's manifest.
      calls: the calls with their inputs and JAX's results.
      dump: a directory for the inputs, the results and the code if they differ.

    Returns:
      The loaded executable.

    Raises:
      SonewError: a result differs from JAX's or between two calls with the same inputs, or a call fails or changes an
        input that is not donated, or examples are taken wrongly from the device.
    """
    with scratch_folder() as path:
        spec = FileSpec.of(executable)
        (path / target.file).write_bytes(executable)
        weights = {name: each for name, each in manifest.files.items() if name == PARAMETERS_FILE}
        described = replace(manifest, targets=(target,), files={target.file: spec, **weights})
        (path / MANIFEST_FILE).write_text(described.to_json(), encoding="utf-8")
        device: Device = open_device()
        try:
            program = Program.load(replace(open_bundle(path), is_trusted=True), device)
        except SonewError as error:
            raise _wrong(target, f"cannot be loaded: {error}", dump) from None
        comparisons = _Comparisons(manifest, partial(_end, executable=executable, target=target, dump=dump))
        last = {call.function: call for call in calls}
        first: dict[str, Arrays] = {}
        for call in calls:
            made = _made(program, call, twice=call is last[call.function])
            first[call.function] = made.results[0]
            comparisons.add(call, made)
        for call in last.values():
            # The same bits agree with JAX as they did before.
            comparisons.add(call, _made(program, call), known=first[call.function])
        comparisons.end()
        if problem := wrong_take(program):
            raise _wrong(target, problem, dump)
    return program


def _end(
    problem: str, call: Call, results: Arrays, *, executable: bytes, target: TargetSpec, dump: Path | None
) -> NoReturn:
    """Raises the error of a problem, after writing the files that show it."""
    if dump is not None:
        _dump(dump, executable, target, call, results)
    raise _wrong(target, f"computes {call.function} wrongly: {problem}", dump)


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What came of a call that was made once or twice.

    Attributes:
      error: why a call failed; empty if none did.
      results: the results of each time, in the device's memory where the host can reach it; of the first none if it
        failed.
      kept: the inputs that the call has to leave as they are, read likewise after it.
    """

    error: str
    results: list[Arrays]
    kept: Arrays


def _made(program: Program, call: Call, *, twice: bool = False) -> _Made:
    """Makes a call, a second time with the same inputs if `twice`."""
    function = program.manifest.functions[call.function]
    given = call.function != UPDATE_COMMON and (call.function == TRAIN_STEP or is_update(call.function))
    left = [spec for spec in function.inputs if not (given and spec.name in call.results)]
    kept = {spec.name: program.upload(spec, call.inputs[spec.name]) for spec in left}
    found: list[Arrays] = []
    for _ in range(2 if twice else 1):
        donated = {
            spec.name: program.upload(spec, call.inputs[spec.name]) for spec in function.inputs if spec not in left
        }
        try:
            results = program.call(call.function, {**kept, **donated})
            found.append({spec.name: program.view(spec, results[spec.name]) for spec in function.outputs})
        except SonewError as error:
            return _Made(error=f"it ends with: {_reason(error)}", results=[*found, {}], kept={})
    return _Made(error="", results=found, kept={spec.name: program.view(spec, kept[spec.name]) for spec in left})


def _problem(call: Call, specs: Sequence[TensorSpec], made: _Made, *, known: Arrays | None = None) -> str:
    """The problem of a call in words; empty if there is none.

    Args:
      call: the call, with its inputs and JAX's results.
      specs: the results in the manifest.
      made: what came of it.
      known: the results of an earlier call, already compared with JAX's.
    """
    if made.error:
        return made.error
    for name, array in made.kept.items():
        if not same_bits(array, call.inputs[name]):
            return f"it changes {name}, which it has to leave as it is"
    earlier, later = made.results[0] if known is None else known, made.results[-1]
    # Where a later call has written over an earlier call's result, there is nothing left to compare.
    handed = {_address(array) for array in made.kept.values()}
    for name in later if earlier is not later else ():
        if later[name].nbytes and _address(earlier[name]) == _address(later[name]) not in handed:
            return f"it writes {name} over that of an earlier call"
    if known is not None:
        return _unequal(known, later, "after calls of other functions")
    return _unequal(earlier, later, "in two calls with the same inputs") or _not_jax(call, specs, earlier)


class _Comparisons:
    """Compares the results of each call in the background, while the next call is made."""

    def __init__(self, manifest: Manifest, end: Callable[[str, Call, Arrays], NoReturn]) -> None:
        """`end` is called with the problem of a call in words, the call and its results."""
        self._manifest = manifest
        self._end = end
        self._waiting: tuple[Future[str], Call, Arrays] | None = None

    def add(self, call: Call, made: _Made, *, known: Arrays | None = None) -> None:
        """Waits for the comparison before, so that no more results are kept than of two calls, and starts this one."""
        self.end()
        specs = self._manifest.functions[call.function].outputs
        self._waiting = in_background(partial(_problem, call, specs, made, known=known)), call, made.results[0]

    def end(self) -> None:
        """Waits for the last comparison, and calls `end` if it has found a problem."""
        if self._waiting is not None:
            future, call, results = self._waiting
            self._waiting = None
            if problem := future.result():
                self._end(problem, call, results)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _not_jax(call: Call, specs: Sequence[TensorSpec], results: Mapping[str, np.ndarray]) -> str:
    found = _differences(call, specs, results)
    for _ in range(_ROUNDS):
        if not found:
            return ""
        call.move_further()
        found = _differences(call, [spec for spec in specs if spec.name in found], results)
    name, wrong = next(iter(found.items()), ("", None))
    if wrong is None:
        return ""
    return (
        f"{name} differs from JAX's in {wrong.count} of {counted(wrong.size, 'number')}, by up to {wrong.largest:.3g}"
    )


def _differences(call: Call, specs: Sequence[TensorSpec], results: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """The results that are too far from JAX's, by name."""
    found = {}
    for spec in specs:
        choices = _CHOICES if spec.role == Role.METRIC else 0.0
        wrong = difference(
            results[spec.name], call.results[spec.name], partial(call.movement, spec.name), choices=choices
        )
        if wrong is not None:
            found[spec.name] = wrong
    return found


def _reason(error: SonewError) -> str:
    """The error's message without the temporary folder."""
    return str(error).partition(" failed on device ")[2] or str(error)


def _unequal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], when: str) -> str:
    return next((f"{name} is not the same {when}" for name in one if not same_bits(one[name], other[name])), "")


def _wrong(target: TargetSpec, problem: str, dump: Path | None) -> SonewError:
    remedy = "report it with what --dump-check DIR writes" if dump is None else f"report it with what is in {dump}"
    return SonewError(
        f"the executable for {target.name} {problem}; no bundle is written: {remedy}, choose another --target or "
        "optimizer, or take it as it is by --no-check"
    )


def _dump(folder: Path, executable: bytes, target: TargetSpec, call: Call, results: Mapping[str, np.ndarray]) -> None:
    """Writes the files that show the difference. 16-bit floats become float32, which NumPy's files can hold."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / target.file).write_bytes(executable)
    for name, arrays in (("inputs", call.inputs), ("results", results), ("expected", call.results)):
        plain: dict[str, Any] = {
            key.replace("/", "."): value.astype(np.float32) if value.dtype.name == "bfloat16" else value
            for key, value in arrays.items()
        }
        np.savez(folder / f"{call.function}-{name}.npz", **plain)
