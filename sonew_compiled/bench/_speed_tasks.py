"""The tasks of the speed table. Each times two functions in turns, and `speed` makes the table from their results."""

from __future__ import annotations

import functools
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from sonew_compiled.bench._elsewhere import Elsewhere
from sonew_compiled.bench._pairs import Pairs, timed
from sonew_compiled.bench._roofline import Copy
from sonew_compiled.bench._speed_settings import OTHER_POLICIES, SpeedSettings
from sonew_compiled.bench._steps import compare_steps, compile_step, jax_step
from sonew_compiled.bench._update import CompiledUpdate, JaxUpdate, load_step
from sonew_compiled.models import load_model
from sonew_compiled.presets import OptimizerSettings, optimizer_settings
from sonew_compiled.runtime import (
    Dataset,
    Program,
    TrainSettings,
    load_dataset,
    open_bundle,
    open_device,
    train,
)
from sonew_compiled.runtime.reporter import Reporter

# A pair is a block of this many steps of the runtime's loop and a block of as many bare steps. The first step of a
# block, which finds the other kind's data in the caches, does not count.
_BLOCK = 4
# The loop and the update alone take this many times as many pairs. The loop's overhead is less than the difference
# between two equal steps, and the update takes only a few milliseconds.
_MORE_PAIRS = 4

# The bundles to compile, by the name of the folder.
_BUNDLES = {
    "f32": ("tridiag-sonew", "f32"),
    "bf16": ("tridiag-sonew", "bf16"),
    **{policy: ("tridiag-sonew", policy) for policy in OTHER_POLICIES},
    "adam": ("adam", "f32"),
    "shampoo": ("shampoo", "f32"),
}


def compile_bundles(settings: dict[str, Any], folder: str, names: list[str]) -> dict[str, float]:
    """The bundles of these names, in the place of those that are there; gives the seconds that each took."""
    asked = SpeedSettings(**settings)
    predict = load_model(asked.model).predict
    seconds = {}
    for name in names:
        optimizer, precision = _BUNDLES[name]
        shutil.rmtree(Path(folder, name), ignore_errors=True)
        seconds[name] = compile_step(asked, optimizer, Path(folder, name), predict=predict, precision=precision)
    return seconds


def measure_step(settings: dict[str, Any], folder: str, precision: str) -> dict[str, Any]:
    """The whole step over XLA's and, for other precisions than float32, over the step in float32."""
    asked = SpeedSettings(**settings)
    device = open_device()
    step = load_step(Program.load(open_bundle(Path(folder, precision)), device))
    with Elsewhere(functools.partial(jax_step, asked.model, "tridiag-sonew", asked.batch_size, precision)) as other:
        measured = {f"step_{precision}": compare_steps(step, other, asked.pairs)}
    if precision != "f32":
        full = load_step(Program.load(open_bundle(Path(folder, "f32")), device))
        measured[f"step_{precision}_over_f32"] = compare_steps(step, full, asked.pairs)
    return measured


def measure_policies(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The whole steps under other policies over the step in float32."""
    asked = SpeedSettings(**settings)
    device = open_device()

    def step(precision: str) -> Callable[[], None]:
        return load_step(Program.load(open_bundle(Path(folder, precision)), device))

    full = step("f32")
    return {f"step_{each}_over_f32": compare_steps(step(each), full, asked.pairs) for each in OTHER_POLICIES}


def measure_optimizers(settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """The whole steps of tridiagonal SONew and of Shampoo, with its share of the roots, over Adam's."""
    asked = SpeedSettings(**settings)
    device = open_device()
    adam, tridiagonal, shampoo = (
        load_step(Program.load(open_bundle(Path(folder, name)), device)) for name in ("adam", "f32", "shampoo")
    )
    interval = int(optimizer_settings("shampoo").number("precond_interval"))

    def block(step: Callable[[], None]) -> Callable[[], None]:
        def steps() -> None:
            for _ in range(interval):
                step()

        return steps

    blocks = max(asked.pairs // _BLOCK, 1)
    return {
        "step_over_adam": compare_steps(tridiagonal, adam, asked.pairs),
        "shampoo_step_over_adam": compare_steps(block(shampoo), block(adam), blocks, warm_up=1),
    }


def measure_updates(settings: dict[str, Any]) -> dict[str, Any]:
    """The update alone over XLA's, over a copy, in bfloat16, with four bands, and over Adam's."""
    asked = SpeedSettings(**settings)
    init = load_model(asked.model).init
    device = open_device()
    tridiagonal = CompiledUpdate(init, optimizer_settings("tridiag-sonew"), device)
    copy = Copy()
    pairs = _MORE_PAIRS * asked.pairs

    def against(make: Callable[[], Callable[[], object]], *, other_first: bool = False) -> dict[str, Any]:
        other = make()
        first, second = (other, tridiagonal) if other_first else (tridiagonal, other)
        return compare_steps(first, second, pairs)

    def compiled(name: str, **more: Any) -> Callable[[], Callable[[], object]]:
        return lambda: CompiledUpdate(init, optimizer_settings(name), device, **more)

    bandwidth = against(lambda: copy)
    copied = copy.bytes / bandwidth["b_seconds"]
    bandwidth |= {
        "ratio": tridiagonal.bytes / bandwidth["a_seconds"] / copied,
        "update_bytes": tridiagonal.bytes,
        "copy_bytes_per_second": copied,
    }
    with Elsewhere(functools.partial(_jax_update, asked.model)) as other:
        over_jax = compare_steps(tridiagonal, other, pairs)
    return {
        "update_f32": over_jax,
        "update_bandwidth_share": bandwidth,
        "update_bf16_over_f32": against(compiled("tridiag-sonew", precision="bf16"), other_first=True),
        "band4_over_tridiag": against(compiled("band-sonew"), other_first=True),
        "tridiag_over_adam": against(compiled("adam")),
    }


def _jax_update(model: str) -> JaxUpdate:
    return JaxUpdate(load_model(model).init, optimizer_settings("tridiag-sonew"))


def measure_growth(settings: dict[str, Any]) -> dict[str, Any]:
    """The update's time per parameter for a large matrix over that for a small one."""
    asked = SpeedSettings(**settings)
    device = open_device()
    optimizer: OptimizerSettings = optimizer_settings("tridiag-sonew")

    def update(side: int) -> CompiledUpdate:
        return CompiledUpdate(lambda key: {"w": jnp.zeros((side, side), jnp.float32)}, optimizer, device)

    small_side, large_side = asked.growth_sides
    small, large = update(small_side), update(large_side)
    # The two are timed in turns, so that neither finds its state in a cache. In a real step no update does, because the
    # matrix products come before it.
    described = compare_steps(large, small, asked.pairs)
    per_parameter = (large_side / small_side) ** 2
    described |= {
        "ratio": described["ratio"] / per_parameter,
        "per_pair": [each / per_parameter for each in described["per_pair"]],
    }
    return {"growth": described}


class _Loop(Reporter):
    """Times the loop's steps from the calls of a reporter, and does a block of bare steps after each block of them."""

    def __init__(self, bare: Callable[[], None]) -> None:
        self._bare = bare
        self._steps: list[float] = []
        self._last = 0.0
        self.loop: list[float] = []
        self.alone: list[float] = []

    def begin(self, *, step: int, steps: int, epochs: int, steps_per_epoch: int, batch_size: int) -> None:
        self._last = time.perf_counter()

    def step(self, *, step: int, loss: float) -> None:
        self._steps.append(time.perf_counter() - self._last)
        if len(self._steps) == _BLOCK + 1:
            self.loop.append(statistics.median(self._steps[1:]))
            self._bare()
            self.alone.append(statistics.median(timed(self._bare) for _ in range(_BLOCK)))
            self._steps = []
        self._last = time.perf_counter()


def measure_loop(settings: dict[str, Any], folder: str, precision: str) -> dict[str, Any]:
    """The runtime loop's overhead over the bare step: taking a batch, reading the loss, the rest."""
    asked = SpeedSettings(**settings)
    bundle = open_bundle(Path(folder, precision))
    device = open_device()
    reporter = _Loop(load_step(Program.load(bundle, device)))
    dataset = _examples(bundle, asked)
    batches = next(iter(dataset.train.values())).shape[0] // asked.batch_size
    steps = (_MORE_PAIRS * asked.pairs + 1) * (_BLOCK + 1)
    epochs = -(-steps // batches)
    with tempfile.TemporaryDirectory(prefix="sonew-") as scratch:
        train(
            bundle,
            dataset,
            TrainSettings(
                epochs=epochs, learning_rate=1e-6, checkpoint_every=epochs, evaluate_every=0, max_steps=steps
            ),
            device,
            output=scratch,
            reporter=reporter,
        )
    measured = Pairs(a=tuple(reporter.loop[1:]), b=tuple(reporter.alone[1:]))  # the first pair warms up
    described = measured.described()
    described |= {"ratio": measured.ratio - 1, "per_pair": [each - 1 for each in measured.each]}
    return {"loop_overhead" if precision == "f32" else f"loop_overhead_{precision}": described}


def _examples(bundle: Any, settings: SpeedSettings) -> Dataset:
    """The embedded digits if they fit the model, else two batches of random examples."""
    fields = bundle.manifest.batch
    if [spec.name for spec in fields] == ["image"] and math.prod(fields[0].shape[1:]) == 28 * 28:
        return load_dataset("mnist-10k")
    rng = np.random.default_rng(0)
    count = 2 * settings.batch_size
    arrays = {
        spec.name: rng.random((count, *spec.shape[1:]), np.float32)
        if spec.dtype.startswith(("float", "bfloat"))
        else np.zeros((count, *spec.shape[1:]), np.int32)
        for spec in fields
    }
    return Dataset(name="random", train=arrays, test={k: v[:1] for k, v in arrays.items()}, fingerprint="")
