"""`sonew run`."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.presets import SETTINGS
from sonew_compiled.setting import flag_of

if TYPE_CHECKING:
    from sonew_compiled.runtime import Bundle, TrainSettings

DEFAULT_EPOCHS = 20
DEFAULT_OUTPUT = Path("sonew-run")
_BUNDLE = "bundle"
_NEW_BUNDLE = ".bundle-new"

# What is compiled in, and so cannot be asked for beside a bundle.
_COMPILED_IN = ("model", "optimizer", *SETTINGS, "batch_size", "precision", "targets", "params")


@click.command("run")
@click.argument("bundle", type=options.PATH, required=False)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    help=f"The run's folder.  [default: that of the run that is resumed, else {DEFAULT_OUTPUT}]",
)
@options.data_options
@click.option("--epochs", type=click.IntRange(min=1), help=f"Passes over the data.  [default: {DEFAULT_EPOCHS}]")
@options.seed_option
@options.schedule_options
@click.option(
    "--warmup-epochs",
    type=click.IntRange(min=0),
    help="Epochs in which the learning rate rises.  [default: the larger of 2 and a twentieth of the epochs]",
)
@options.device_option
@click.option("--resume", type=options.PATH, metavar="RUN", help="Go on from a run's folder, or from one checkpoint.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the output folder.")
@click.option(
    "--max-steps", type=click.IntRange(min=1), help="Stop after this many steps of the whole run, to be resumed later."
)
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Checkpoints to keep.")
@click.option(
    "--checkpoint-every", type=click.IntRange(min=1), default=1, show_default=True, help="Epochs between checkpoints."
)
@options.compile_options
@options.json_option
def run_command(
    bundle: Path | None,
    output: Path | None,
    data: str | None,
    data_dir: Path | None,
    device: str | None,
    resume: Path | None,
    overwrite: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Train from BUNDLE; without one, compile first.

    Writes checkpoints and metrics.jsonl into the output folder. Ctrl-C saves a checkpoint and says how to go on. The
    options from --model to --params say what to compile, so they go only without BUNDLE.

    \b
    Examples:
      sonew run                                     the autoencoder on the 10,000 embedded digits
      sonew run ae.bundle --data mnist --epochs 100
      sonew run --optimizer band-sonew --band 4 --learning-rate 5e-3
      sonew run --resume sonew-run                  go on with a run that was stopped
      sonew run ae.bundle --json > result.json
    """
    from sonew_compiled.runtime import find_checkpoint, make_reporter, open_bundle, open_device, train
    from sonew_compiled.runtime.checkpoint import read_checkpoint_metadata

    # Everything that can be wrong with the command line is looked at before minutes go into compiling.
    if overwrite and resume:
        raise UsageError("--overwrite replaces a run and --resume goes on with one; leave one of them out")
    opened_device = open_device(device)
    checkpoint = None if resume is None else find_checkpoint(resume)
    output = output or (checkpoint.parent if checkpoint else DEFAULT_OUTPUT)
    path = bundle or (_bundle_beside(checkpoint) if checkpoint else None)
    if path is not None:
        _check_nothing_compiled_in(path, what)
    dataset = options.dataset_of(data, data_dir, read_checkpoint_metadata(checkpoint) if checkpoint else {})
    # Where the run's bundle will be, and where it is until there is a checkpoint.
    place = path or output / _BUNDLE
    source = path or _compile_into(output, what, overwrite=overwrite)
    try:
        opened = open_bundle(source)
        settings = _settings(opened, checkpoint, what)
        resume_command = _resume_command(
            place, output, {"--data": dataset.name, "--data-dir": data_dir, "--device": opened_device.name}, settings
        )
        result = train(
            opened,
            dataset,
            settings,
            opened_device,
            output=output,
            resume=checkpoint,
            overwrite=overwrite,
            replaced=(lambda: _replace_bundle(output, source, place)) if overwrite else None,
            reporter=make_reporter(),
            resume_command=resume_command,
        )
    finally:
        if source != place:
            shutil.rmtree(source, ignore_errors=True)
    result = dataclasses.replace(result, bundle=place)
    if as_json:
        options.print_json(dataclasses.asdict(result) | {"output": output})
    all_steps = settings.epochs * (len(next(iter(dataset.train.values()))) // opened.manifest.batch_size)
    if settings.max_steps == result.steps < all_steps:
        options.say(f"stopped after --max-steps {result.steps}; go on with: {resume_command}")
    options.say(
        f"train loss {result.train_loss:.4f}, test loss {result.test_loss:.4f} after {result.steps:,} steps; "
        f"{result.seconds:.1f} s, {result.images_per_second:,.0f} images/s on {result.device}; {result.checkpoint}"
    )


def _check_nothing_compiled_in(bundle: Path, what: dict[str, Any]) -> None:
    given = next((name for name in _COMPILED_IN if what[name] not in (None, ())), None)
    if given:
        flag = "--target" if given == "targets" else flag_of(given)
        raise UsageError(
            f"{flag} is compiled into the bundle {bundle}; leave it out, or make another bundle with `sonew compile`"
        )


def _bundle_beside(checkpoint: Path) -> Path:
    """The bundle that the run of a checkpoint compiled."""
    path = checkpoint.parent / _BUNDLE
    if not path.is_dir():
        raise UsageError(
            f"there is no bundle beside {checkpoint}; give the one that it was trained from: "
            f"sonew run BUNDLE --resume {shlex.quote(str(checkpoint.parent))}"
        )
    return path


def _compile_into(output: Path, what: dict[str, Any], *, overwrite: bool) -> Path:
    from sonew_compiled.cli._compile import compile_bundle
    from sonew_compiled.lowering.targets import has_compiler
    from sonew_compiled.runtime.bundle import writable_bundle

    if not has_compiler():
        raise SonewError(
            "no bundle given, and the compiler is not installed here: give one that `sonew compile` made elsewhere, or "
            "pip install 'sonew-compiled[compile]'"
        )
    path = output / _BUNDLE
    if any(output.glob("step-*.safetensors")):
        if not overwrite:
            folder = shlex.quote(str(output))
            raise UsageError(
                f"{output} holds the checkpoints of another run; go on with it by --resume {folder}, replace it by "
                "--overwrite, or give another --output"
            )
        writable_bundle(path)
        # The other run keeps its bundle until there is a checkpoint of this one.
        path = output / _NEW_BUNDLE
    options.say(f"no bundle given: compiling one into {output / _BUNDLE}")
    compile_bundle(path, what)
    return path


def _replace_bundle(output: Path, source: Path, place: Path) -> None:
    """Remove the bundle of the run that is replaced, or it would be taken for the new one's, and put that there."""
    from sonew_compiled.runtime.bundle import is_replaceable

    old = output / _BUNDLE
    if old.is_dir() and old.resolve() != source.resolve() and is_replaceable(old):
        shutil.rmtree(old, ignore_errors=True)
    if source != place:
        source.rename(place)


def _settings(bundle: Bundle, checkpoint: Path | None, what: dict[str, Any]) -> TrainSettings:
    """What is asked for, over what a resumed run had, over the bundle's defaults."""
    from sonew_compiled.runtime import TrainSettings, resumed_settings

    defaults = bundle.manifest.defaults
    if checkpoint is None:
        base = TrainSettings(
            epochs=DEFAULT_EPOCHS, learning_rate=defaults["learning_rate"], schedule=defaults["schedule"]
        )
    else:
        base = resumed_settings(checkpoint)
    names = ("epochs", "learning_rate", "schedule", "warmup_epochs", "seed", "keep", "checkpoint_every", "max_steps")
    return dataclasses.replace(base, **{name: what[name] for name in names if what[name] is not None})


def _resume_command(bundle: Path, output: Path, same: dict[str, Any], settings: TrainSettings) -> str:
    """The command line that goes on with the run; a checkpoint remembers what is not in it."""
    words = ["sonew", "run"]
    if bundle.resolve() != (output / _BUNDLE).resolve():
        words.append(str(bundle))
    words += ["--resume", str(output)]
    for flag, value in same.items():
        words += [flag, str(value)] if value is not None else []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("keep", "checkpoint_every") and value != field.default:
            words += [flag_of(field.name), str(value)]
    return shlex.join(words)
