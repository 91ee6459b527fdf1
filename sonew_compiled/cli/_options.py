"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sonew_compiled.cli._setting_type import Whole, type_of
from sonew_compiled.contract import EXCHANGES
from sonew_compiled.install import require
from sonew_compiled.presets import (
    DEFAULT_OPTIMIZER,
    OPTIMIZERS,
    PRECISIONS,
    PRESETS,
    RECORDS,
    SETTINGS,
    OptimizerSettings,
    long_preset_of,
    optimizer_settings,
    preset_for,
)
from sonew_compiled.setting import flag_of
from sonew_compiled.step_settings import NUMBERS, PATTERNS, StepSettings
from sonew_compiled.train_settings import DEFAULT_SCHEDULE, TrainOption, train_options

if TYPE_CHECKING:
    from sonew_compiled.models import Model
    from sonew_compiled.runtime import Bundle, Program, Trained

Command = Callable[..., Any]

DEFAULT_BATCH_SIZE = 1000

MODELS = ("autoencoder", "autoencoder-small", "classifier", "resnet18", "gpt-small", "vit-small")


class _Optimizer(click.Choice):  # type: ignore[type-arg]  # not generic in older releases
    """The name of an optimizer; `sonew` is the tridiagonal one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(DEFAULT_OPTIMIZER if value == _SHORT_NAME else value, param, ctx)


_SHORT_NAME = "sonew"
OPTIMIZER = _Optimizer(OPTIMIZERS)
OPTIMIZER_NAMES = f"{', '.join(OPTIMIZERS)}, or {_SHORT_NAME} for {DEFAULT_OPTIMIZER}"


_TRAIN_OPTIONS = {option.name: option for option in train_options()}

RATE = type_of(_TRAIN_OPTIONS["learning_rate"])
PATH = click.Path(path_type=Path)

WEIGHTS = "a checkpoint, a run's folder for its latest one, or a .safetensors or .npz file of weights"

checkpoint_option = click.option(
    "--checkpoint", type=PATH, help=f"The weights: {WEIGHTS}.  [default: those of the bundle, if it has any]"
)
PARAMS = "params"
"""The compile option that says where a run starts, so that it may be given with a bundle too."""
params_option = click.option(
    "--params", type=PATH, help=f"Initial weights: {WEIGHTS}.  [default: random ones, or those of the bundle]"
)
raw_option = click.option("--raw", is_flag=True, help="Take the parameters of a run with --ema, not their averages.")


def complete_devices(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The devices of this machine, for a shell."""
    from sonew_compiled.runtime import list_devices

    return [device.name for device in list_devices() if device.name.startswith(incomplete)]


def complete_targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The targets, for a shell."""
    from sonew_compiled.lowering.targets import processor_names, target_names

    return [name for name in ("all", *target_names(), *processor_names()) if name.startswith(incomplete)]


bundle_argument = click.argument("bundle", type=PATH)
device_option = click.option(
    "--device",
    shell_complete=complete_devices,
    help="Device to run on, such as local-task or vulkan; see `sonew targets`.  [default: local-task]",
)
trusted_keys_option = click.option(
    "--trusted-keys",
    type=PATH,
    envvar="SONEW_TRUSTED_KEYS",
    show_envvar=True,
    help="File of Ed25519 public keys in PEM; accept only bundles that one of them has signed.",
)
batch_size_option = click.option(
    "--batch-size",
    type=Whole(min=1),
    default=DEFAULT_BATCH_SIZE,
    show_default=True,
    help="Examples in a step.",
)


def how_to_train(*names: str, shown: Mapping[str, str] | None = None, **defaults: Any) -> Callable[[Command], Command]:
    """The options of `TrainSettings` with these names, or all of them.

    Args:
      names: the names of the options.
      shown: how the help shows the defaults of some, by name.
      defaults: values, by name, for a command that knows them. Others are None if they are not given, and come from a
        bundle or a checkpoint.
    """

    def option(declared: TrainOption) -> Callable[[Command], Command]:
        if declared.name in defaults:
            default = defaults[declared.name]
            return click.option(
                declared.flag,
                declared.name,
                type=type_of(declared),
                default=default,
                help=f"{declared.help}  [default: {default}]",
            )
        text = f"{declared.help}  [default: {(shown or {}).get(declared.name, declared.shown_default)}]"
        if declared.kind is bool:
            return click.option(declared.flag, declared.name, is_flag=True, default=None, help=text)
        return click.option(declared.flag, declared.name, type=type_of(declared), help=text)

    declared = [_TRAIN_OPTIONS[name] for name in names or _TRAIN_OPTIONS]
    return lambda command: _with([option(each) for each in declared], command)


# The help of a setting names its optimizers unless they are more than this.
_MOST_NAMED = 4


def _setting_option(name: str) -> Callable[[Command], Command]:
    """The option of a setting, from the records of the optimizers that have it."""
    having = {record.name: setting for record in RECORDS.values() if (setting := record.setting(name))}
    first = next(iter(having.values()))
    of_whom = f" ({', '.join(having)})" if len(having) <= _MOST_NAMED else ""
    defaults = {setting.default for setting in having.values()}
    value = defaults.pop() if len(defaults) == 1 else "the optimizer's preset"
    shown = "" if value is None else f"  [default: {value if isinstance(value, str) else format(value, 'g')}]"
    kind = click.Choice(first.choices) if first.kind is str else first.kind
    return click.option(first.flag, name, type=kind, help=f"{first.help.removesuffix('.')}{of_whom}.{shown}")


# The options that replace settings of the optimizer's preset.
_SETTING_OPTIONS: Sequence[Callable[[Command], Command]] = tuple(_setting_option(name) for name in SETTINGS)


def setting_options(command: Command) -> Command:
    """The options of an optimizer's settings, without the learning rate."""
    return _with(_SETTING_OPTIONS, command)


_CHECK_OPTIONS = (
    click.option(
        "--check/--no-check",
        default=True,
        show_default=True,
        help="Before writing the bundle, compare the code that this machine can run with JAX.",
    ),
    click.option("--dump-check", type=PATH, help="If the check fails, write inputs and results to this directory."),
)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """The command with these options in order."""
    for option in reversed(options):
        command = option(command)
    return command


_STEP_OPTIONS: Sequence[Callable[[Command], Command]] = (
    *(click.option(each.flag, each.name, type=type_of(each), help=each.help) for each in NUMBERS),
    *(
        click.option(flag_of(name), name, multiple=True, metavar="PATTERN", help=text)
        for name, text in PATTERNS.items()
    ),
)
STEP_FLAGS = {**{each.name: each.flag for each in NUMBERS}, **{name: flag_of(name) for name in PATTERNS}}
"""The flags of `step_options`, by the names of their parameters."""


def step_options(command: Command) -> Command:
    """The options of what a step does besides its optimizer."""
    return _with(_STEP_OPTIONS, command)


_COMPILE_OPTIONS: Sequence[Callable[[Command], Command]] = (
    click.option(
        "--model",
        help=f"{', '.join(MODELS)}, or package.module:attribute of yours.  [default: {MODELS[0]}]",
    ),
    click.option(
        "--optimizer",
        type=OPTIMIZER,
        metavar="NAME",
        help=f"Optimizer: {OPTIMIZER_NAMES}.  [default: {DEFAULT_OPTIMIZER}]",
    ),
    click.option(
        "--preset",
        "optimizer_preset",
        type=click.Choice(PRESETS),
        help="The optimizer's settings for about 20 epochs or for about 100, where these differ "
        f"({', '.join(record.name for record in RECORDS.values() if record.long)}).  "
        "[default: short; `sonew run` chooses by --epochs]",
    ),
    *_SETTING_OPTIONS,
    click.option(
        "--batch-size",
        type=Whole(min=1),
        help=f"Examples in a training step.  [default: {DEFAULT_BATCH_SIZE}]",
    ),
    click.option(
        "--micro-batch",
        type=Whole(min=1),
        help="Examples to work on at a time, for a batch that is too large or that workers share; "
        "it must divide --batch-size.  [default: the whole batch]",
    ),
    click.option(
        "--exchange",
        type=click.Choice(EXCHANGES),
        help="Type to which the gradients of micro-batches are rounded; bf16 is for workers on a slow network.  "
        "[default: f32]",
    ),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        help="Precision policy: the dtypes of storage and computation.  [default: f32]",
    ),
    click.option(
        "--target",
        "targets",
        multiple=True,
        shell_complete=complete_targets,
        help="Target to compile for, from `sonew targets`, or all; repeatable.  [default: cpu]",
    ),
    *_STEP_OPTIONS,
    click.option(
        "--init",
        "init_on",
        type=click.Choice(("device", "host")),
        help="Where init runs: on the device for each run's seed, or here once for seed 0, if it cannot be compiled.  "
        "[default: device]",
    ),
    params_option,
)


def check_options(command: Command) -> Command:
    """The options of the check before a bundle is written."""
    return _with(_CHECK_OPTIONS, command)


def compile_options(command: Command) -> Command:
    """The options that are compiled into a bundle."""
    return _with(_COMPILE_OPTIONS, command)


def what_is_compiled_in() -> dict[str, str]:
    """The flags of `compile_options`, by the names of their parameters."""
    made = click.Command("compile")
    compile_options(made)
    return {str(parameter.name): parameter.opts[0] for parameter in made.params}


def schedule_of(options: dict[str, Any]) -> str:
    """The schedule that the compile options leave to a run: the given one, else that of the preset."""
    if options["optimizer_preset"] == "long":
        long = long_preset_of(options["optimizer"] or DEFAULT_OPTIMIZER, options["precision"] or PRECISIONS[0])
        return options["schedule"] or long.schedule
    return options["schedule"] or DEFAULT_SCHEDULE


def optimizer_of(options: dict[str, Any]) -> OptimizerSettings:
    """The optimizer of the compile options."""
    return optimizer_settings(
        options["optimizer"] or DEFAULT_OPTIMIZER,
        precision=options["precision"] or PRECISIONS[0],
        preset=options["optimizer_preset"] or PRESETS[0],
        **{setting: options[setting] for setting in SETTINGS},
    )


def choose_preset(options: dict[str, Any], epochs: int) -> str | None:
    """The preset for a run of so many epochs, if the options leave it open.

    The long one is chosen only if no setting of the optimizer is given, because a rate without grafting goes with no
    other settings.
    """
    if options["optimizer_preset"] is not None:
        return str(options["optimizer_preset"])
    if any(options[name] is not None for name in (*SETTINGS, "learning_rate")):
        return None
    found = preset_for(
        options["optimizer"] or DEFAULT_OPTIMIZER,
        model=options["model"] or MODELS[0],
        precision=options["precision"] or PRECISIONS[0],
        epochs=epochs,
    )
    return found if found == "long" else None


def step_of(options: dict[str, Any]) -> StepSettings:
    """What the compile options say of a step besides the optimizer."""
    return StepSettings(**{name: options[name] for name in STEP_FLAGS})


def open_bundle(path: Path, trusted_keys: Path | None) -> Bundle:
    """The bundle; if there are trusted keys, one of them must have signed it."""
    if trusted_keys is None:
        from sonew_compiled.runtime import open_bundle

        return open_bundle(path)
    require("sign", purpose="--trusted-keys")
    from sonew_compiled.runtime.signature import open_signed_bundle

    return open_signed_bundle(path, trusted_keys)


def load_program(
    bundle: Path, checkpoint: Path | None, device: str | None, trusted_keys: Path | None, *, raw: bool
) -> tuple[Program, Trained]:
    """The bundle's code on a device, and the trained weights that go with it."""
    from sonew_compiled.runtime import Program, load_trained, open_device

    opened = open_bundle(bundle, trusted_keys)
    trained = load_trained(opened, checkpoint, raw=raw)
    return Program.load(opened, open_device(device)), trained


def load_model(name: str) -> Model:
    """The built-in model of that name, or the attribute that `package.module:attribute` names."""
    from sonew_compiled.models import load_model

    return load_model(name)


def user_code(name: str) -> AbstractContextManager[None]:
    """Turns exceptions from the code of a user's model into one line with the place; other errors stay as they are."""
    from sonew_compiled.models import user_code

    return user_code(name)
