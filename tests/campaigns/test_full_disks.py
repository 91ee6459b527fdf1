"""Disks that are full once a file reaches a given size."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns import compiling
from campaigns.conduct import check_end, seeds

from sonew_compiled.runtime import open_bundle, read_metrics

EndsWell = Callable[..., int]

COMMON = ("--data", "data.npz")
COMMANDS: tuple[tuple[object, ...], ...] = (
    ("run", "small.bundle", *COMMON, "--epochs", 3, "-o", "fresh"),
    ("run", "small.bundle", *COMMON, "--resume", "run", "--epochs", 7),
    ("run", "small.bundle", *COMMON, "--epochs", 3, "--seed", 3, "-o", "run", "--overwrite"),
    ("plot", "run", "-o", "loss.png"),
    ("reconstruct", "small.bundle", "--checkpoint", "run", *COMMON, "-o", "loss.png"),
)


def test_full_disks(ends_well: EndsWell, restored: Callable[[], None], full_disk: Callable[..., Any]) -> None:
    """Either the old files are unchanged, or the command has done all of its work."""
    for seed in seeds(10):
        rng = random.Random(seed)
        command = COMMANDS[seed % len(COMMANDS)]
        Path("loss.png").write_bytes(b"an older picture")
        size = int(10 ** rng.uniform(0, 5))
        with full_disk(after=size):
            code = ends_well(seed, *command)
        names = {path.name for path in Path("run").iterdir()}
        assert {name.partition("-")[0] for name in names} == {"metrics.jsonl", "step"}, (seed, size, names)
        if command[0] == "run":
            for folder in filter(Path.exists, (Path("run"), Path("fresh"))):
                # A last line that is cut off is left out.
                steps = [row["step"] for row in read_metrics(folder)]
                assert steps == sorted(set(steps)), (seed, size, steps)
            assert ends_well(seed, "eval", "small.bundle", "--checkpoint", "run", *COMMON) == 0
            again = ("run", "small.bundle", *COMMON, "--resume", "run", "--epochs", 8)
            assert ends_well(seed, *again) == 0
        else:
            assert (Path("loss.png").read_bytes() == b"an older picture") == (code != 0), (seed, size)
        restored()


def test_full_disks_of_what_compiles(
    sonew: Callable[..., Any],
    restored: Callable[[], None],
    temporary: Path,
    full_disk: Callable[..., Any],
    log: Callable[[str], None],
) -> None:
    """An older bundle stays whole, and the same command does it all when there is space again."""
    for seed in seeds(1):
        name = list(compiling.COMMANDS)[seed % 3]
        size = int(10 ** random.Random(seed).uniform(0, 5.3))
        with full_disk(after=size):
            result = sonew(*compiling.COMMANDS[name])
        what = f"seed {seed}: {name} with {size:,} bytes: {result.code}: {result.err[-200:].strip()}"
        log(what)
        check_end(result.code, result.err, what)
        open_bundle("small.bundle").verify()
        result = sonew(*compiling.COMMANDS[name])
        assert result.code == 0, f"{what}, then {result.err}"
        compiling.IS_DONE[name]()
        assert list(temporary.iterdir()) == [], what
        restored()
