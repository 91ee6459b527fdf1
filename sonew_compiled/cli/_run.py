"""`sonew run`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _dataset_options as datasets
from sonew_compiled.cli import _options as options
from sonew_compiled.cli._dry_run import (
    DEFAULT,
    chosen,
    chosen_in_compilation,
    compiled_files,
    dry_run_option,
    show_plan,
)
from sonew_compiled.cli._figures import figures, in_words
from sonew_compiled.cli._say import is_quiet, note, output_options, print_json, show_result
from sonew_compiled.cli._sections import SectionedCommand
from sonew_compiled.cli._workers import (
    check_bundle_for_workers,
    device_of,
    exchange_of,
    is_worker_by_config,
    start_workers,
    worker_options,
    worker_words,
)
from sonew_compiled.errors import SonewError, UsageError, counted, measured
from sonew_compiled.install import install_command, require
from sonew_compiled.presets import DEFAULT_OPTIMIZER, PRECISIONS, long_preset_of
from sonew_compiled.setting import flag_of
from sonew_compiled.train_settings import DEFAULT_EPOCHS, TrainSettings, train_options

if TYPE_CHECKING:
    from sonew_compiled.runtime import Bundle, Device, RunFolder, Workers
    from sonew_compiled.runtime.nccl import Nccl

DEFAULT_OUTPUT = Path("sonew-run")
# The names of `sonew_compiled.trackers`, which is imported only when one is asked for.
TRACKERS = ("tensorboard", "wandb", "mlflow")


@click.command("run", cls=SectionedCommand)
@click.argument("bundle", type=options.PATH, required=False)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    help=f"The run's folder.  [default: the resumed run's, else {DEFAULT_OUTPUT}]",
)
@datasets.data_options
@options.how_to_train()
@options.device_option
@options.trusted_keys_option
@click.option("--resume", type=options.PATH, metavar="RUN", help="Resume from a run's folder, or from one checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the output folder, or its checkpoints after RUN.")
@worker_options
@click.option(
    "--log",
    "trackers",
    type=click.Choice(TRACKERS),
    multiple=True,
    help="Experiment tracker to send the numbers of each epoch to, through its own library; repeatable.",
)
@options.compile_options
@dry_run_option
@output_options
def run_command(
    bundle: Path | None,
    output: Path | None,
    data: str | None,
    data_dir: Path | None,
    device: str | None,
    trusted_keys: Path | None,
    resume: Path | None,
    overwrite: bool,
    workers: int | None,
    trackers: tuple[str, ...],
    shard_state: bool | None,
    exchange_by: str,
    dry_run: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Train from BUNDLE; without one, compile first.

    Writes checkpoints and metrics.jsonl into the output folder. Ctrl-C saves a checkpoint and shows the command that
    resumes. A BUNDLE has been compiled, so it goes with no option of the sections Compilation, Optimizer and Step but
    --params.

    \b
    Examples:
      sonew run                                     the autoencoder on the 10,000 embedded digits
      sonew run ae.bundle --data mnist --epochs 100
      sonew run --optimizer band-sonew --band 4 --learning-rate 5e-3
      sonew run --resume sonew-run                  resume a run that was stopped
      sonew run ae.bundle --params weights.npz      start from given weights
      sonew run ae.bundle --json > result.json
      sonew run ae.bundle --keep-best --patience 5 --log tensorboard
      sonew run parts.bundle --workers 4            in four processes, as by mpirun -n 4
    """
    from sonew_compiled.runtime import RunFolder, connect, find_checkpoint, open_device

    # The whole command line is checked before minutes of compiling.
    for kind in trackers:
        require(kind, purpose=f"sonew run --log {kind}")
    if resume and what["params"]:
        raise UsageError("--params starts a run from given weights and --resume continues one; leave one of them out")
    if dry_run:
        found = None if resume is None else find_checkpoint(resume)
        folder = RunFolder(output or (found.parent if found else DEFAULT_OUTPUT))
        folder.refuse_other_run(found, overwrite=overwrite)
        _show_plan(folder, bundle, found, data, data_dir, open_device(device), trusted_keys, what, as_json=as_json)
        return
    if workers is not None and workers > 1 and not is_worker_by_config():
        check_bundle_for_workers(bundle, resume)
        start_workers(workers)
    with connect() as connected:
        if connected.count > 1:
            check_bundle_for_workers(bundle, resume)
        opened_device = open_device(device_of(device, connected.local_rank))
        nccl = exchange_of(exchange_by, opened_device, connected)
        found = None if resume is None else find_checkpoint(resume)
        folder = RunFolder(output or (found.parent if found else DEFAULT_OUTPUT))
        with folder.hold() if connected.rank == 0 else contextlib.nullcontext():
            connected.meet()
            try:
                _train(
                    folder,
                    bundle,
                    data,
                    data_dir,
                    opened_device,
                    trusted_keys,
                    resume,
                    what,
                    connected,
                    trackers,
                    shard_state=shard_state,
                    nccl=nccl,
                    resumed_with=worker_words(connected, shard_state=shard_state, exchange_by=exchange_by),
                    overwrite=overwrite,
                    as_json=as_json,
                )
            finally:
                if connected.rank == 0:
                    folder.discard()


def _train(
    folder: RunFolder,
    bundle: Path | None,
    data: str | None,
    data_dir: Path | None,
    device: Device,
    trusted_keys: Path | None,
    resume: Path | None,
    what: dict[str, Any],
    workers: Workers,
    trackers: tuple[str, ...],
    *,
    shard_state: bool | None,
    nccl: Nccl | None,
    resumed_with: list[str],
    overwrite: bool,
    as_json: bool,
) -> None:
    from sonew_compiled.runtime import find_checkpoint, load_weights, open_bundle, train
    from sonew_compiled.runtime.checkpoint import read_checkpoint_metadata
    from sonew_compiled.runtime.limits import check_trainable
    from sonew_compiled.runtime.reporter import make_reporter
    from sonew_compiled.runtime.shown import argument

    # The last checkpoint is looked up again, now that no other process can add one.
    checkpoint = None if resume is None else find_checkpoint(resume)
    path = bundle or (_bundle_beside(checkpoint) if checkpoint else None)
    if path is not None:
        _check_nothing_compiled_in(path, what)
    metadata = read_checkpoint_metadata(checkpoint) if checkpoint else {}
    dataset = datasets.dataset_of(data, data_dir, metadata, tell=not workers.rank)
    if path is None:
        opened = open_bundle(_compile_into(folder, what, overwrite=overwrite))
    else:
        opened = options.open_bundle(path, trusted_keys)
    check_trainable(opened.manifest, opened.path)
    settings = _settings(opened.manifest.defaults, checkpoint, what)
    # Weights that are compiled in are those to start from.
    parameters = load_weights(what["params"], opened.manifest) if what["params"] and path is not None else None
    resume_command = folder.resume_command(
        opened.path, data=dataset.name, data_dir=data_dir, device=device.name, settings=settings
    )
    keys = [] if trusted_keys is None else ["--trusted-keys", argument(trusted_keys)]
    logs = [word for kind in trackers for word in ("--log", kind)]
    resume_command = " ".join([resume_command, *keys, *resumed_with, *logs])
    with contextlib.ExitStack() as closing:
        tracked = None
        if trackers and not workers.rank:
            from sonew_compiled.trackers import Trackers

            tracked = Trackers(trackers, folder=folder.path, settings=settings.named(), say=note)
            closing.callback(tracked.close)
        result = train(
            opened,
            dataset,
            settings,
            device,
            output=folder,
            resume=checkpoint,
            parameters=parameters,
            overwrite=overwrite,
            on_epoch=tracked.epoch if tracked else None,
            reporter=None if workers.rank or is_quiet() else make_reporter(unit=opened.manifest.unit),
            resume_command=resume_command,
            workers=workers,
            shard_state=shard_state,
            nccl=nccl,
        )
    if nccl is not None:
        nccl.close()
    if workers.rank:
        return
    if as_json:
        fields = {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
        on_train, on_test = fields.pop("on_train"), fields.pop("on_test")
        print_json(figures(on_train, on_test) | fields | {"output": folder.path})
    all_steps = settings.epochs * (len(next(iter(dataset.train.values()))) // opened.manifest.batch_size)
    if checkpoint is not None and int(metadata["step"]) == all_steps:
        note(f"{checkpoint} has all {counted(settings.epochs, 'epoch')} already; give more --epochs to go on")
    if settings.max_steps == result.steps < all_steps:
        note(f"stopped after --max-steps {result.steps}; go on with: {resume_command}")
    best = None if result.best_test_loss is None else measured(result.best_test_loss)
    if result.stopped_early:
        was = "NaN or infinite" if best is None else f"not below {best}"
        note(f"stopped early: the test loss was {was} in {counted(settings.patience or 0, 'evaluation')}")
    if result.best_checkpoint:
        show_result(f"the smallest test loss was {best}: {result.best_checkpoint}", as_json=as_json)
    worth = in_words(result.on_train, result.on_test, opened.manifest.unit)
    show_result(
        f"{worth} after {counted(result.steps, 'step')}; "
        f"{result.seconds:.1f} s, {result.examples_per_second:,.0f} examples/s on {result.device}{_of(workers)}; "
        f"{result.checkpoint}",
        as_json=as_json,
    )


def _show_plan(
    folder: RunFolder,
    bundle: Path | None,
    checkpoint: Path | None,
    data: str | None,
    data_dir: Path | None,
    device: Device,
    trusted_keys: Path | None,
    what: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """What the run would do."""
    from sonew_compiled.runtime import bind, load_weights
    from sonew_compiled.runtime.checkpoint import read_checkpoint_metadata
    from sonew_compiled.runtime.evaluate import check_evaluated
    from sonew_compiled.runtime.limits import check_trainable
    from sonew_compiled.runtime.metrics import METRICS_FILE
    from sonew_compiled.runtime.resuming import header_of, load_to_resume

    opened: Bundle | None = None
    path = bundle or (_bundle_beside(checkpoint) if checkpoint else None)
    metadata = read_checkpoint_metadata(checkpoint) if checkpoint else {}
    dataset = datasets.dataset_of(data, data_dir, metadata)
    writes: list[Path] = []
    if path is None:
        _require_compiler()
        preset = options.choose_preset(what, what["epochs"] or DEFAULT_EPOCHS)
        because = "the number of epochs" if preset != what["optimizer_preset"] else ""
        found = chosen_in_compilation(what | {"optimizer_preset": preset}, because)
        options.load_model(found["model"].value)
        names = compiled_files(found["targets"].value, has_params=what["params"] is not None)
        writes = [folder.bundle / name for name in names]
        batch_size, targets = found["batch_size"].value, list(found["targets"].value)
        defaults: Mapping[str, Any] = {name: found[name].value for name in ("learning_rate", "schedule")}
        sources = {name: found[name].source for name in defaults}
        examples = datasets.check_batch_size(batch_size, dataset)
        steps_per_epoch = examples // batch_size
    else:
        _check_nothing_compiled_in(path, what)
        opened = options.open_bundle(path, trusted_keys)
        check_trainable(opened.manifest, opened.path)
        if what["params"]:
            load_weights(what["params"], opened.manifest)
        manifest = opened.manifest
        found = {}
        batch_size, targets = manifest.batch_size, [target.name for target in manifest.targets]
        defaults, sources = manifest.defaults, dict.fromkeys(manifest.defaults, f"bundle {path}")
        bound = bind(dataset.train, manifest.batch, manifest.classes)
        check_evaluated(manifest, bind(dataset.test, manifest.batch, manifest.classes))
        examples, steps_per_epoch = bound.examples, bound.steps_per_epoch
    of_checkpoint = metadata.keys() if checkpoint else ()
    settings = _settings(defaults, checkpoint, what).with_warmup(steps_per_epoch)
    if checkpoint is not None and opened is not None:
        header = settings.to_metadata() | header_of(opened, data=dataset.name, fingerprint=dataset.fingerprint)
        load_to_resume(checkpoint, opened, header, settings=settings, steps_per_epoch=steps_per_epoch)
    for name, value in dataclasses.asdict(settings).items():
        otherwise = f"checkpoint {checkpoint}" if name in of_checkpoint else sources.get(name, DEFAULT)
        found[name] = chosen(name, value, otherwise)
    found["data"] = chosen("data", dataset.name, f"checkpoint {checkpoint}" if "data" in metadata else DEFAULT)
    found["device"] = chosen("device", device.name)
    found["output"] = chosen("output", folder.path, f"--resume {checkpoint}" if checkpoint else DEFAULT)
    show_plan(
        found,
        writes=[*writes, folder.path / METRICS_FILE, folder.path / "step-*.safetensors"],
        as_json=as_json,
        bundle=str(path or folder.bundle),
        targets=targets,
        device=f"{device.name} ({device.description})",
        examples=examples,
        steps=settings.epochs * steps_per_epoch,
    )


def _of(workers: Workers) -> str:
    return f" of {workers.count} workers" if workers.count > 1 else ""


def _check_nothing_compiled_in(bundle: Path, what: dict[str, Any]) -> None:
    for name, flag in options.what_is_compiled_in().items():
        if name != options.PARAMS and what[name] not in (None, ()):
            raise UsageError(
                f"{flag} is compiled into the bundle {bundle}; leave it out, or make another bundle with "
                "`sonew compile`"
            )


def _bundle_beside(checkpoint: Path) -> Path:
    """The bundle that the run of a checkpoint compiled."""
    from sonew_compiled.runtime import RunFolder
    from sonew_compiled.runtime.shown import argument

    path = RunFolder(checkpoint.parent).bundle
    if not path.is_dir():
        raise UsageError(
            f"there is no bundle beside {checkpoint}; give the one that it was trained from: "
            f"sonew run BUNDLE --resume {argument(checkpoint.parent)}"
        )
    return path


def _require_compiler() -> None:
    from sonew_compiled.lowering.targets import has_compiler

    if not has_compiler():
        raise SonewError(
            "no bundle given, and the compiler is not installed here: give one that `sonew compile` made elsewhere, or "
            f"{install_command('compile')}"
        )


def _compile_into(folder: RunFolder, what: dict[str, Any], *, overwrite: bool) -> Path:
    from sonew_compiled.cli._compile import compile_bundle

    _require_compiler()
    path = folder.place_for_bundle(overwrite=overwrite)
    note(f"no bundle given: compiling one into {folder.bundle}")
    preset = options.choose_preset(what, what["epochs"] or DEFAULT_EPOCHS)
    if preset == "long" != what["optimizer_preset"]:
        note(f"{what['epochs']} epochs: {_long_preset_in_words(what)}; --preset short has the settings for 20 epochs")
    compile_bundle(path, what | {"optimizer_preset": preset})
    return path


def _long_preset_in_words(what: dict[str, Any]) -> str:
    """The settings of the long preset, as the options that would give them."""
    name = what["optimizer"] or DEFAULT_OPTIMIZER
    long = long_preset_of(name, what["precision"] or PRECISIONS[0])
    given = {**long.values, "learning_rate": long.learning_rate, "schedule": what["schedule"] or long.schedule}
    shown = " ".join(f"{flag_of(key)} {value}" for key, value in given.items())
    return f"the long preset of {name}, {shown}"


def _settings(defaults: Mapping[str, Any], checkpoint: Path | None, what: dict[str, Any]) -> TrainSettings:
    """The settings of the command line, else those of the resumed run, else the bundle's defaults."""
    from sonew_compiled.runtime import resumed_settings

    if checkpoint is None:
        base = TrainSettings(
            epochs=DEFAULT_EPOCHS, learning_rate=defaults["learning_rate"], schedule=defaults["schedule"]
        )
    else:
        base = resumed_settings(checkpoint)
    given = {option.name: what[option.name] for option in train_options() if what[option.name] is not None}
    return base.changed(given)
