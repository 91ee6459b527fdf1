"""Options that mean the same in every command that has them."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.errors import UsageError
from sonew_compiled.presets import DEFAULT_OPTIMIZER, OPTIMIZERS, OptimizerSettings, optimizer_settings

if TYPE_CHECKING:
    from sonew_compiled.models import Model

Command = Callable[..., Any]

DEFAULT_BATCH_SIZE = 1000


class _Rate(click.ParamType):  # type: ignore[type-arg]  # not generic in older releases
    """A finite number from zero on."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; give zero or a positive number, such as 1e-2", param, ctx)
        if not 0 <= number < math.inf:
            self.fail(f"{value!r} is not accepted; give zero or a positive number, such as 1e-2", param, ctx)
        return number


RATE = _Rate()
PATH = click.Path(path_type=Path)

bundle_argument = click.argument("bundle", type=PATH)
device_option = click.option("--device", help="Device to run on, such as local-task or vulkan; see `sonew targets`.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    help="Seed of the initial weights and of the order of the data.  [default: 0]",
)


def data_options(command: Command) -> Command:
    """`--data` and `--data-dir`."""
    command = click.option("--data-dir", type=PATH, help="Where the files of `mnist` are.")(command)
    return click.option(
        "--data",
        default="mnist-10k",
        show_default=True,
        help="mnist-10k (embedded), mnist (the full set), or a .npy or .npz file of images.",
    )(command)


def schedule_options(command: Command) -> Command:
    """`--learning-rate`, `--schedule`."""
    command = click.option(
        "--schedule",
        type=click.Choice(["paper", "constant", "cosine"]),
        help="How the learning rate moves.  [default: what the bundle says, paper]",
    )(command)
    return click.option("--learning-rate", type=RATE, help="Peak learning rate.  [default: the optimizer's preset]")(
        command
    )


def compile_options(command: Command) -> Command:
    """What is compiled into a bundle."""
    options = (
        click.option(
            "--model",
            default=None,
            help="autoencoder, classifier, or package.module:attribute.  [default: autoencoder]",
        ),
        click.option("--optimizer", type=click.Choice(OPTIMIZERS), help=f"Optimizer.  [default: {DEFAULT_OPTIMIZER}]"),
        click.option("--band", type=int, help="Off-diagonals of band-sonew's preconditioner.  [default: 4]"),
        click.option("--b1", type=float, help="Decay of the momentum.  [default: the optimizer's preset]"),
        click.option("--b2", type=float, help="Decay of the statistics.  [default: the optimizer's preset]"),
        click.option("--eps", type=float, help="Damping.  [default: the optimizer's preset]"),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            help=f"Examples in a training step.  [default: {DEFAULT_BATCH_SIZE}]",
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            help="What to compile for; repeatable.  [default: cpu] `sonew targets`.",
        ),
        click.option("--params", type=PATH, help="Safetensors file of initial parameters to put in the bundle."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def optimizer_of(options: dict[str, Any]) -> OptimizerSettings:
    """The optimizer that the compile options ask for."""
    return optimizer_settings(
        options["optimizer"] or DEFAULT_OPTIMIZER,
        band=options["band"],
        b1=options["b1"],
        b2=options["b2"],
        eps=options["eps"],
    )


def load_model(name: str) -> Model:
    """The built-in model, or the attribute that `package.module:attribute` names."""
    from sonew_compiled import models

    built_in = {"autoencoder": models.autoencoder, "classifier": models.classifier}
    if name in built_in:
        return built_in[name]
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(
            f"unknown model {name!r}; give {', '.join(built_in)}, or package.module:attribute of a Model of yours"
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise UsageError(f"--model {name}: importing {module_name} needs {error.name}; install it") from None
        raise UsageError(f"--model {name}: there is no module {module_name} here or installed") from None
    finally:
        sys.path.pop(0)
    model = getattr(module, attribute, None)
    if not isinstance(model, models.Model):
        found = "nothing" if model is None else f"a {type(model).__name__}"
        raise UsageError(f"--model {name}: {attribute} is {found}; make it a sonew_compiled.Model")
    return model


def print_json(value: Any) -> None:
    """One JSON value on stdout, and nothing else."""
    click.echo(json.dumps(value, indent=1, default=str))


def say(line: str) -> None:
    """A line for people, on stderr."""
    click.echo(line, err=True)
