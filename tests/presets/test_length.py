"""The preset of an optimizer by length of training: which one ships, when it is chosen, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.cli import _compile, _options
from sonew_compiled.errors import UsageError
from sonew_compiled.presets import PRECISIONS, RECORDS, optimizer_settings
from sonew_compiled.setting import flag_of
from sonew_compiled.train_settings import SCHEDULES

LONG = [(name, precision) for name, record in RECORDS.items() for precision in record.long]


@pytest.mark.parametrize(("name", "precision"), LONG)
def test_a_long_preset_ships_what_is_accepted(name: str, precision: str) -> None:
    long, record = RECORDS[name].long[precision], RECORDS[name]
    assert precision in PRECISIONS
    assert long.schedule in SCHEDULES
    settings = optimizer_settings(name, precision=precision, preset="long")
    short = optimizer_settings(name, precision=precision, preset="short")
    assert settings.values == {**record.values, **long.values}
    assert settings.learning_rate == long.learning_rate
    assert settings != short == optimizer_settings(name, precision=precision)
    given = optimizer_settings(name, precision=precision, preset="long", **{next(iter(short.values)): None})
    assert given == settings


def test_settings_replace_those_of_the_long_preset() -> None:
    long = optimizer_settings(preset="long")
    assert optimizer_settings(preset="long", eps=1e-3).values == {**long.values, "eps": 1e-3}


def test_what_has_no_long_preset_says_who_has() -> None:
    with pytest.raises(
        UsageError, match=r"--preset long does not go with sgd, .* give --optimizer .*tridiag-sonew, band-sonew"
    ):
        optimizer_settings("sgd", preset="long")
    with pytest.raises(UsageError, match="--preset long of tridiag-sonew does not go with --precision f16-mixed; give"):
        optimizer_settings(precision="f16-mixed", preset="long")
    with pytest.raises(UsageError, match="preset is 'huge'; give one of short, long"):
        optimizer_settings(preset="huge")


@pytest.mark.parametrize(
    ("words", "preset", "schedule"),
    [
        ("--epochs 100", "long", "paper"),
        ("--epochs 99", None, "cosine"),
        ("", None, "cosine"),
        ("--epochs 100 --schedule linear --model autoencoder --precision f32 --batch-size 500", "long", "linear"),
        ("--epochs 100 --preset short", "short", "cosine"),
        ("--epochs 3 --preset long", "long", "paper"),
        ("--epochs 100 --b1 0.9", None, "cosine"),
        ("--epochs 100 --state int8", None, "cosine"),
        ("--epochs 100 --learning-rate 1e-3", None, "cosine"),
        ("--epochs 100 --model classifier", None, "cosine"),
        ("--epochs 100 --precision f16-mixed", None, "cosine"),
        ("--epochs 100 --optimizer sgd", None, "cosine"),
    ],
)
def test_a_run_takes_the_preset_of_its_length(
    sonew: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: str,
    preset: str | None,
    schedule: str,
) -> None:
    compiled: list[dict[str, Any]] = []

    def stop(path: Path, what: dict[str, Any]) -> None:
        compiled.append(what)
        raise UsageError("enough")

    monkeypatch.setattr(_compile, "compile_bundle", stop)
    result = sonew("run", *words.split(), "-o", tmp_path / "out")
    (what,) = compiled
    assert what["optimizer_preset"] == preset
    assert _options.schedule_of(what) == schedule
    settings = _options.optimizer_of(what)
    assert (settings.values.get("eps_mode") == "absolute") == (preset == "long")
    said = [line for line in result.err.splitlines() if "long preset" in line]
    if preset == "long" and "--preset" not in words:
        (line,) = said
        assert line.startswith("100 epochs: the long preset of tridiag-sonew, --eps 3e-06 ")
        given = f"--learning-rate 0.007 --schedule {schedule}"
        assert line.endswith(f"{given}; --preset short has the settings for 20 epochs")
        assert all(f"{flag_of(key)} {settings.values[key]} " in line for key in ("eps", "eps_mode", "rank1"))
    else:
        assert not said
