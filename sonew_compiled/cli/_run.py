"""`sonew run`."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli import _options as options
from sonew_compiled.errors import UsageError

if TYPE_CHECKING:
    from sonew_compiled.runtime import Bundle, Dataset, Device, TrainSettings

DEFAULT_EPOCHS = 20
_BUNDLE = "bundle"

# What is compiled in, and so cannot be asked for beside a bundle.
_COMPILED_IN = ("model", "optimizer", "band", "b1", "b2", "eps", "batch_size", "targets", "params")


@click.command("run")
@click.argument("bundle", type=options.PATH, required=False)
@click.option(
    "-o", "--output", type=options.PATH, default=Path("sonew-run"), show_default=True, help="The run's folder."
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
@click.option("--overwrite", is_flag=True, help="Delete the run that is in the output folder.")
@click.option("--max-steps", type=click.IntRange(min=1), help="Stop after this many steps, as if stopped by Ctrl-C.")
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Checkpoints to keep.")
@click.option(
    "--checkpoint-every", type=click.IntRange(min=1), default=1, show_default=True, help="Epochs between checkpoints."
)
@options.compile_options
@options.json_option
def run_command(
    bundle: Path | None,
    output: Path,
    data: str,
    data_dir: Path | None,
    device: str | None,
    resume: Path | None,
    overwrite: bool,
    as_json: bool,
    **what: Any,
) -> None:
    """Train from BUNDLE; without one, compile first.

    Writes checkpoints and metrics.jsonl into the output folder. Ctrl-C saves a checkpoint and says how to go on.

    \b
    Examples:
      sonew run                                     the autoencoder on the 10,000 embedded digits
      sonew run ae.bundle --data mnist --epochs 100
      sonew run --optimizer band-sonew --band 4 --learning-rate 5e-3
      sonew run --resume sonew-run                  go on with a run that was stopped
      sonew run ae.bundle --json > result.json
    """
    from sonew_compiled.runtime import load_dataset, make_reporter, open_bundle, open_device, train

    # Everything that can be wrong with the command line is looked at before minutes go into compiling.
    opened_device = open_device(device)
    dataset = load_dataset(data, data_dir=data_dir)
    _check_bundle_options(bundle, resume, what)
    if overwrite:
        _delete_run(output, resume)
    path = bundle or _bundle_of(resume) or _compile_into(output, what)
    opened = open_bundle(path)
    settings = _settings(opened, resume, what)
    result = train(
        opened,
        dataset,
        settings,
        opened_device,
        output=output,
        resume=resume,
        reporter=make_reporter(),
        resume_command=_resume_command(opened, dataset, data_dir, opened_device, output),
    )
    if as_json:
        options.print_json(dataclasses.asdict(result) | {"output": output})
    options.say(
        f"train loss {result.train_loss:.4f}, test loss {result.test_loss:.4f} after {result.steps:,} steps; "
        f"{result.seconds:.1f} s, {result.images_per_second:,.0f} images/s on {result.device}; {result.checkpoint}"
    )


def _check_bundle_options(bundle: Path | None, resume: Path | None, what: dict[str, Any]) -> None:
    given = [name for name in _COMPILED_IN if what[name] not in (None, ())]
    if given and (bundle or resume):
        flag = "--target" if given[0] == "targets" else f"--{given[0].replace('_', '-')}"
        raise UsageError(
            f"{flag} is compiled into the bundle {bundle or _bundle_of(resume)}; leave it out, or make another bundle "
            "with `sonew compile`"
        )


def _bundle_of(resume: Path | None) -> Path | None:
    """The bundle in the folder of a run that compiled one."""
    if resume is None:
        return None
    path = (resume if resume.is_dir() else resume.parent) / _BUNDLE
    if not path.is_dir():
        raise UsageError(
            f"--resume {resume}: there is no bundle beside it; give the bundle that it was trained from too"
        )
    return path


def _delete_run(output: Path, resume: Path | None) -> None:
    """Deletes what a run wrote into `output`, and nothing else."""
    if resume is not None:
        raise UsageError("--overwrite and --resume exclude each other; leave one out")
    for path in (*output.glob("step-*.safetensors"), output / "metrics.jsonl"):
        path.unlink(missing_ok=True)
    if (output / _BUNDLE / "manifest.json").exists():
        shutil.rmtree(output / _BUNDLE)


def _compile_into(output: Path, what: dict[str, Any]) -> Path:
    from sonew_compiled.cli._compile import compile_bundle

    path = output / _BUNDLE
    if any(output.glob("step-*.safetensors")):
        raise UsageError(
            f"{output} holds the checkpoints of another run; --resume {output} to go on with it, or give another "
            "--output, or --overwrite"
        )
    options.say(f"no bundle given: compiling one into {path}")
    compile_bundle(path, what)
    return path


def _settings(bundle: Bundle, resume: Path | None, what: dict[str, Any]) -> TrainSettings:
    """What is asked for, over what a resumed run had, over the bundle's defaults."""
    from sonew_compiled.runtime import TrainSettings, resumed_settings

    if resume is not None:
        base = resumed_settings(resume)
    else:
        defaults = bundle.manifest.defaults
        base = TrainSettings(
            epochs=DEFAULT_EPOCHS, learning_rate=defaults["learning_rate"], schedule=defaults["schedule"]
        )
    if resume is not None and what["epochs"] is not None and what["warmup_epochs"] is None:
        what["warmup_epochs"] = base.warmup_epochs
    names = ("epochs", "learning_rate", "schedule", "warmup_epochs", "seed", "keep", "checkpoint_every", "max_steps")
    return dataclasses.replace(base, **{name: what[name] for name in names if what[name] is not None})


def _resume_command(bundle: Bundle, dataset: Dataset, data_dir: Path | None, device: Device, output: Path) -> str:
    words = ["sonew", "run"]
    if bundle.path.resolve() != (output / _BUNDLE).resolve():
        words.append(str(bundle.path))
    words += ["--resume", str(output), "--output", str(output), "--data", dataset.name]
    words += ["--data-dir", str(data_dir)] if data_dir else []
    words += ["--device", device.name]
    return shlex.join(words)
