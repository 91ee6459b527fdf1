"""What `sonew tune --enqueue` takes: settings in words, or a file with the best of other studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sonew_compiled.bench._forms import RATE
from sonew_compiled.bench.studies import read_studies
from sonew_compiled.errors import UsageError
from sonew_compiled.presets import SETTINGS, Value, record_of
from sonew_compiled.setting import flag_of

_EXAMPLE = "learning_rate=1e-3,b1=0.9"


def read_enqueued(asked: Sequence[str], optimizer: str) -> tuple[Mapping[str, Value], ...]:
    """The settings of each trial to begin with, by name.

    Args:
      asked: each is `name=value,name=value`, or a file: the `best.json` of a study, or such objects a line. Of a file
        the best settings of each study of this optimizer are taken.
      optimizer: its name.

    Raises:
      UsageError: one is neither, names a setting that no optimizer has, or a file has no study of this optimizer.
      SonewError: a file is damaged.
    """
    found: list[Mapping[str, Value]] = []
    for each in asked:
        if "=" in each and not Path(each).exists():
            found.append(_settings(each, optimizer))
            continue
        studies = [study for study in read_studies(Path(each)) if study.optimizer == optimizer and study.best]
        if not studies:
            raise UsageError(f"--enqueue {each} has no study of {optimizer} with a trial that ended; give another file")
        found += [{**study.fixed, **(study.best or {})} for study in studies]
    return tuple(found)


def _settings(text: str, optimizer: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for part in text.split(","):
        name, separator, value = part.strip().partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not separator or not value.strip():
            raise UsageError(f"--enqueue has {part.strip()!r}; give settings such as {_EXAMPLE}, or a file")
        if name in found:
            raise UsageError(f"--enqueue has {name} twice in {text!r}; give it once")
        found[name] = _value(name, value.strip(), optimizer)
    return found


def _value(name: str, value: str, optimizer: str) -> Value:
    record = record_of(optimizer)
    setting = record.setting(name)
    if setting is None and name != RATE:
        accepted = ", ".join([RATE, *(each.name for each in record.settings)])
        why = f"does not go with {optimizer}" if name in SETTINGS else "is no setting"
        raise UsageError(f"--enqueue has {name}={value}, which {why}; give some of {accepted}")
    if setting is not None and setting.kind is str:
        return value
    try:
        number = float(value)
    except ValueError:
        of = setting.accepted if setting is not None else "a positive number, such as 1e-3"
        raise UsageError(f"{flag_of(name)} is {value!r} in --enqueue; give {of}") from None
    return int(number) if setting is not None and setting.kind is int and number.is_integer() else number
