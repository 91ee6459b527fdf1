"""Compiles models, optimizers, precisions and targets, for the tables of docs/reference/targets.md.

Two steps are trained on each target that this machine runs. The two built-in models are compiled with SONew under every
policy. A small dense network is compiled with every optimizer in float32; some optimizers' full matrices fit only that.

    python tools/target_table.py --output docs/results/targets.jsonl
    python tools/target_table.py --target cpu --target vulkan --model classifier --output part.jsonl

Combinations of the same compiler that are already in the output file are skipped, so an interrupted run goes on. Only
native code runs steps of the autoencoder, because a software driver takes minutes for each.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import json
import math
import multiprocessing
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from sonew_compiled import models
from sonew_compiled.compile import compile_training
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.lowering.targets import resolve_targets, target_names
from sonew_compiled.presets import OPTIMIZERS, PRECISIONS, optimizer_settings
from sonew_compiled.runtime import open_bundle, open_device, why_not_here
from sonew_compiled.runtime.dtypes import as_dtype
from sonew_compiled.runtime.manifest import TargetSpec
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.state import TrainingState

# The batch size of each model.
MODELS = {"autoencoder": 1000, "classifier": 100, "dense": 32}
DENSE_WIDTHS = (16, 12, 8)


def combinations(
    model_names: Iterable[str] = MODELS, optimizers: Iterable[str] = OPTIMIZERS, precisions: Iterable[str] = PRECISIONS
) -> list[tuple[str, str, str]]:
    """The combinations to compile: SONew under every policy, or every optimizer in float32."""
    return [
        (model, optimizer, precision)
        for model, optimizer, precision in itertools.product(model_names, optimizers, precisions)
        if (precision == "f32" if model == "dense" else optimizer.endswith("-sonew"))
    ]


KEYS = ("model", "optimizer", "precision", "target")

Row = dict[str, Any]


def _dense_init(key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    sides = itertools.pairwise(DENSE_WIDTHS)
    return {
        f"layer{index}": {"kernel": jax.random.normal(key, side) / math.sqrt(side[0]), "bias": jnp.zeros(side[1])}
        for index, side in enumerate(sides)
    }


def _dense_loss(params: dict[str, dict[str, jax.Array]], batch: dict[str, jax.Array]) -> jax.Array:
    hidden = jnp.tanh(batch["x"] @ params["layer0"]["kernel"] + params["layer0"]["bias"])
    return jnp.mean(jnp.sum(jnp.square(hidden @ params["layer1"]["kernel"] + params["layer1"]["bias"]), axis=-1))


def _dense_batch(size: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"x": jax.ShapeDtypeStruct((size, DENSE_WIDTHS[0]), jnp.float32)}


def model_of(name: str) -> models.Model:
    """The built-in model of that name, or the dense network."""
    if name == "dense":
        return models.Model(init=_dense_init, loss=_dense_loss, batch=_dense_batch)
    built_in: models.Model = getattr(models, name)
    return built_in


def rows_of(setting: tuple[str, str, str], targets: Sequence[str]) -> list[Row]:
    """Compiles for all targets at once or, if that fails, for each alone."""
    model, optimizer, precision = setting
    row = {"model": model, "optimizer": optimizer, "precision": precision, "compiler": compiler()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "bundle")
        built_in = model_of(model)
        try:
            manifest = compile_training(
                built_in.loss,
                built_in.init,
                optimizer_settings(optimizer),
                built_in.batch(MODELS[model]),
                predict=built_in.predict,
                output=path,
                targets=targets,
                model=model,
                precision=precision,
            )
        except SonewError as error:
            if len(targets) > 1:
                return [each for target in targets for each in rows_of(setting, [target])]
            result = "refused" if isinstance(error, UsageError) else "failed"
            return [{**row, "target": targets[0], "result": result, "ran": False, "why": str(error)}]
        # The steps run in another process, since the software Vulkan driver's threads keep the cores busy to its end.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results = pool.submit(results_of_running, path, manifest.targets, model).result()
        return [{**row, "target": target.name, **each} for target, each in zip(manifest.targets, results, strict=True)]


def results_of_running(path: Path, targets: Sequence[TargetSpec], model: str) -> list[Row]:
    """For each target of a bundle, whether it was run, and the error if that failed."""
    results = []
    for target in targets:
        try:
            results.append({"result": "compiled", "ran": ran(path, target, model), "why": ""})
        except SonewError as error:
            results.append({"result": "failed", "ran": False, "why": str(error)})
    return results


def ran(path: Path, target: TargetSpec, model: str) -> bool:
    """Whether two steps on this machine gave finite losses; false if it has no such device."""
    if model == "autoencoder" and not target.name.startswith("cpu"):
        return False
    try:
        device = open_device(None if target.driver == "local" else target.driver)
    except SonewError:
        return False
    if why_not_here(target, {device.driver: device.description}):
        return False
    bundle = open_bundle(path)
    manifest = dataclasses.replace(bundle.manifest, targets=(target,))
    only = dataclasses.replace(bundle, manifest=manifest, is_trusted=True)
    program = Program.load(only, device)
    state = TrainingState.initial(program, seed=0)
    rng = np.random.default_rng(0)
    batch = {
        spec.name: (rng.random(spec.shape) * (10 if as_dtype(spec.dtype).kind == "i" else 1)).astype(spec.dtype)
        for spec in only.manifest.batch
    }
    rate = device.upload(np.array(1e-3, np.float32))
    losses = [state.step(program.upload_batch(batch), rate) for _ in range(2)]
    if not all(map(math.isfinite, losses)):
        raise SonewError(f"the losses of {path} on {target.name} are {losses}")
    return True


def compiler() -> str:
    """The compiler's release, for which the rows hold."""
    return importlib.metadata.version("iree-base-compiler")


def markdown(rows: Iterable[Row]) -> str:
    """Both tables."""
    rows = list(rows)
    of_models = _of_precisions(row for row in rows if row["model"] != "dense")
    return f"{of_models}\n\n{_of_optimizers(row for row in rows if row['model'] == 'dense')}"


def _of_optimizers(rows: Iterable[Row]) -> str:
    """The table of the optimizers, with a column for each target; optimizers with the same results share a line."""
    cells = {(row["optimizer"], row["target"]): "run" if row["ran"] else row["result"] for row in rows}
    named = [target for target in target_names() if any(target == each for _, each in cells)]
    lines = {
        f"`{optimizer}`": [cells.get((optimizer, each), "not tried") for each in named] for optimizer in OPTIMIZERS
    }
    return _table(["optimizers", *(f"`{each}`" for each in named)], lines)


def _of_precisions(rows: Iterable[Row]) -> str:
    """The table of the targets, with a column for each precision; targets with the same results share a line."""
    by_cell: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_cell.setdefault((row["target"], row["precision"]), []).append(row)
    named = {target for target, _ in by_cell}
    lines = {
        f"`{target}`": [_cell(by_cell.get((target, precision), [])) for precision in PRECISIONS]
        for target in target_names()
        if target in named
    }
    return _table(["targets", *(f"`{each}`" for each in PRECISIONS)], lines)


def _table(head: Sequence[str], lines: Mapping[str, Sequence[str]]) -> str:
    """A table in which lines with the same cells are one, named `all` if they are all the same."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, cells in lines.items():
        names.setdefault(tuple(cells), []).append(name)
    grouped = (
        f"| {'all' if len(names) == 1 else ', '.join(each)} | {' | '.join(cells)} |" for cells, each in names.items()
    )
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *grouped])


def _cell(rows: list[Row]) -> str:
    words = []
    compiled = [row for row in rows if row["result"] == "compiled"]
    if compiled:
        words.append(f"{len(compiled)} compiled" + (f", {n} run" if (n := sum(row["ran"] for row in compiled)) else ""))
    words += [
        f"{n} {result}" for result in ("refused", "failed") if (n := sum(row["result"] == result for row in rows))
    ]
    return ", ".join(words) or "not tried"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@click.command()
@click.option("--target", "targets", multiple=True, help="Default: all that can be compiled here.")
@click.option("--model", "model_names", type=click.Choice(list(MODELS)), multiple=True, default=tuple(MODELS))
@click.option("--optimizer", "optimizers", type=click.Choice(OPTIMIZERS), multiple=True, default=OPTIMIZERS)
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, default=PRECISIONS)
@click.option("--output", type=click.Path(path_type=Path), required=True)
def main(
    targets: tuple[str, ...],
    model_names: tuple[str, ...],
    optimizers: tuple[str, ...],
    precisions: tuple[str, ...],
    output: Path,
) -> None:
    """Compile every combination of the repeatable options, and write a row for each."""
    names = [target.name for target in resolve_targets(targets or ("all",))]
    done = {tuple(row[key] for key in KEYS) for row in read_rows(output) if row["compiler"] == compiler()}
    for setting in combinations(model_names, optimizers, precisions):
        pending = [name for name in names if (*setting, name) not in done]
        if not pending:
            continue
        rows = rows_of(setting, pending)
        with output.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            click.echo(" ".join(row[key] for key in KEYS) + f": {row['result']}{' and ran' * row['ran']} {row['why']}")


if __name__ == "__main__":
    main()
