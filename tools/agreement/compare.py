"""A case compiled as the product compiles it, run on devices, and compared with JAX in all that it gives and leaves."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agreement.case import Case
from agreement.oracle import Arrays, Oracle
from sonew_compiled.compile import compile_training
from sonew_compiled.runtime import Bundle, Program, TrainingState, open_bundle, open_device

_SEED = 3
# Races show now and then.
_CHAINS = 3

# Beyond this part of a tensor's largest number, and this much, a difference is looked into.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5

DEVICES = {"local-task": "cpu", "local-sync": "cpu", "vmvx": "vmvx", "vulkan": "vulkan"}
"""The devices that can run a case, each with its target; bytecode runs on one core."""


def disagreements(
    case: Case,
    *,
    devices: Sequence[str] = ("local-task",),
    steps: int = 2,
    chained: int = 0,
    rate: float = 1.0,
    evaluates: bool = True,
) -> list[str]:
    """The differences of the compiled case from JAX; empty if there are none.

    Args:
      case: the model with its optimizer.
      devices: some of `DEVICES`.
      steps: the number of single steps.
      chained: the number of steps in a row.
      rate: the learning rate; at a small rate gradients have little weight beside the parameters that they change.
      evaluates: whether to compile and compare `eval_step` too, which has the loss once more for each example.

    Returns:
      A line for each tensor that differs: device, function, tensor, and the difference.

    Raises:
      SonewError: the case cannot be compiled.
    """
    oracle = Oracle(case, rate)
    with tempfile.TemporaryDirectory(prefix="sonew-agreement-") as folder:
        targets = tuple(dict.fromkeys(DEVICES[name] for name in devices))
        bundle = compiled(case, Path(folder, "bundle"), targets, rate=rate, evaluates=evaluates)
        found: list[str] = []
        for name in devices:
            device = "local-sync" if name == "vmvx" else name
            lines = differences(
                oracle, bundle, DEVICES[name], device, steps=steps, chained=chained, evaluates=evaluates
            )
            found += [f"{name}: {line}" for line in lines]
        return found


def compiled(case: Case, path: Path, targets: Sequence[str], *, rate: float = 1.0, evaluates: bool = True) -> Bundle:
    """The case compiled for targets, as a bundle at the path.

    Raises:
      SonewError: the case cannot be compiled.
    """
    compile_training(
        case.loss,
        case.init,
        case.optimizer,
        dict(case.batch),
        output=path,
        targets=targets,
        learning_rate=rate,
        eval_loss=None if evaluates else unread,
        check=False,
    )
    return open_bundle(path)


def differences(
    oracle: Oracle, bundle: Bundle, target: str, device: str, *, steps: int, chained: int, evaluates: bool
) -> list[str]:
    """The differences of a bundle's code for one target from JAX, as `disagreements` lists them, on a device.

    It compares `init`; `steps` steps, each from JAX's state; `chained` steps in a row, three times; and `eval_step`.
    All but the chain are called twice. Inputs that a function must not change are checked too.
    """
    only = tuple(each for each in bundle.manifest.targets if each.name == target)
    chosen = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, targets=only), is_trusted=True)
    opened = open_device(device)
    try:
        run = _Run(oracle, Program.load(chosen, opened))
        return list(run.disagreements(steps, chained, evaluates=evaluates))
    except Exception as error:  # any exception is a find
        return [f"{type(error).__name__}: {str(error)[:300]}"]


def unread(params: Any, batch: Any) -> jax.Array:
    """The loss in evaluation that compiles to nothing."""
    return jnp.zeros(())


class _Run:
    def __init__(self, oracle: Oracle, program: Program) -> None:
        self._oracle = oracle
        self._program = program
        self._rate = program.device.upload(oracle.rate)

    def disagreements(self, steps: int, chained: int, *, evaluates: bool) -> Iterator[str]:
        oracle = self._oracle
        state = oracle.initial(_SEED)
        try:
            for _ in range(2):
                made = TrainingState.initial(self._program, seed=_SEED)
                yield from _off("init", made.download(), state, {})
        except Exception as error:  # the comparison goes on from JAX's state
            yield f"init: {type(error).__name__}: {str(error)[:300]}"
        batches = [oracle.batch(number) for number in range(chained)]
        for _ in range(_CHAINS if chained else 0):
            here, got = TrainingState.from_arrays(self._program, state), dict[str, np.ndarray]()
            for number, batch in enumerate(batches, 1):
                loss = here.step(self._program.upload_batch(batch), self._rate)
                got[f"loss {number}"] = np.float32(loss)
            yield from self._compared("chain", here.download() | got, state, batches)
        for number in range(steps):
            batch = oracle.batch(100 + number)
            for function in ("eval_step", "train_step") if evaluates else ("train_step",):
                yield from self._called_twice(function, state, batch)
            state = {name: array for name, array in oracle.call("train_step", state, batch).items() if name != "loss"}

    def _called_twice(self, function: str, state: Arrays, batch: Arrays) -> Iterator[str]:
        program = self._program
        fields = program.upload_batch(batch, function=function)
        here = TrainingState.from_arrays(program, state)
        for _ in range(2):
            if function == "train_step":
                here = TrainingState.from_arrays(program, state)
                loss = here.step(fields, self._rate)
                got = here.download() | {"loss": np.float32(loss)}
            else:
                results = program.call(function, {**here.buffers, **fields})
                got = {
                    s.name: program.download(s, results[s.name]) for s in program.manifest.functions[function].outputs
                }
                yield from _off(f"state after {function}", here.download(), state, {})
            yield from self._compared(function, got, state, [batch])
        specs = {spec.name: spec for spec in program.manifest.functions[function].inputs if spec.name in fields}
        left = {name.removeprefix("batch/"): program.download(spec, fields[name]) for name, spec in specs.items()}
        yield from _off(f"batch after {function}", left, {name: batch[name] for name in left}, {})

    def _compared(self, function: str, got: Arrays, state: Arrays, batches: Sequence[Arrays]) -> Iterator[str]:
        oracle = self._oracle
        want = oracle.chain(state, batches) if function == "chain" else oracle.call(function, state, batches[0])
        if any(True for _ in _off(function, got, want, {})):
            yield from _off(function, got, want, oracle.leeway(function, state, batches))


def _off(
    function: str, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray], leeway: Mapping[str, np.ndarray]
) -> Iterator[str]:
    assert got.keys() == want.keys(), f"{function}: {sorted(got.keys() ^ want.keys())} are not in both"
    for name, right in want.items():
        here = got[name]
        assert here.shape == right.shape, f"{function} {name}: shape {here.shape} where JAX has {right.shape}"
        if here.size == 0:
            continue
        here, right = here.astype(np.float64), right.astype(np.float64)
        same = (here == right) | (np.isnan(here) & np.isnan(right))
        with np.errstate(invalid="ignore"):
            distance = np.where(same, 0, np.abs(here - right))
        largest = np.abs(right[np.isfinite(right)]).max(initial=0.0)
        allowed = np.maximum(_RELATIVE * largest + _ABSOLUTE, leeway.get(name, 0))
        if not np.all(distance <= allowed):
            at = np.unravel_index(np.argmax(np.where(np.isnan(distance), np.inf, distance)), distance.shape)
            yield f"{function} {name}{list(map(int, at))}: {here[at]:.6g} where JAX has {right[at]:.6g}"
