"""A run's folder after a process is killed at any moment: it holds the whole old run or the whole new one."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import (
    Bundle,
    Dataset,
    Device,
    RunFolder,
    TrainSettings,
    find_checkpoint,
    open_bundle,
    read_metrics,
    resumed_settings,
    train,
)
from sonew_compiled.runtime.checkpoint import read_checkpoint_metadata

OLD = TrainSettings(epochs=4, learning_rate=0.05, schedule="paper", seed=7)  # of 10 steps each
NEW = dataclasses.replace(OLD, learning_rate=0.02, seed=8)


class Killed(BaseException):
    """Stands for the end of a process, in which its files stay as they are."""


class Killer:
    """Counts the changes that a process makes to the file system, and kills it at one of them.

    After that, no change takes effect, even from the process's handlers.
    """

    def __init__(self) -> None:
        self.is_counting = False
        self.count = 0
        self.at = -1

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_counting or not self._writes(event, arguments):
            return
        if 0 <= self.at <= self.count:
            raise Killed
        self.count += 1

    def run(self, what: Callable[[], object], *, at: int = -1) -> int:
        """Calls `what`, killed at the moment `at` if that is given, and returns the number of moments."""
        self.count, self.at, self.is_counting = 0, at, True
        try:
            what()
        except Killed:
            pass
        finally:
            self.is_counting = False
        return self.count

    @staticmethod
    def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            _, mode, flags = arguments
            return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & 0o103)
        return event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    """The killer, which is disabled in the end, because an audit hook cannot be removed."""
    made = Killer()
    sys.addaudithook(made)
    yield made
    made.is_counting = False


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two bundles of the same functions with different files, as from two compilers."""
    other = tmp_path / "other.bundle"
    shutil.copytree(tiny_bundle, other)
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    name = next(name for name in manifest["files"] if name.endswith(".vmfb"))
    target = next(target for target in manifest["targets"] if target["file"] == name)
    (other / name).rename(other / f"again-{name}")
    target["file"] = f"again-{name}"
    manifest["files"][f"again-{name}"] = manifest["files"].pop(name)
    (other / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert open_bundle(other).digest != open_bundle(tiny_bundle).digest
    return tiny_bundle, other


def state_of(folder: Path) -> tuple[bytes, list[tuple[float, float]]]:
    """The last checkpoint, and the metrics without times."""
    return find_checkpoint(folder).read_bytes(), [(row["step"], row["loss"]) for row in read_metrics(folder)]


def test_a_killed_replacement_leaves_the_old_run_or_the_new(
    bundles: tuple[Path, Path], tiny_data: Dataset, cpu: Device, tmp_path: Path, killer: Killer
) -> None:
    """The replacement, with a new bundle as in `sonew run --overwrite`, is killed at every moment."""
    first, second = bundles

    def old(folder: Path) -> None:
        shutil.copytree(first, RunFolder(folder).place_for_bundle(overwrite=False))
        train(open_bundle(folder / "bundle"), tiny_data, OLD, cpu, output=folder)

    def new(folder: Path) -> None:
        run = RunFolder(folder)
        place = run.place_for_bundle(overwrite=True)
        shutil.copytree(second, place)
        train(open_bundle(place), tiny_data, NEW, cpu, output=folder, overwrite=True)

    def resumed(folder: Path) -> tuple[bytes, list[tuple[float, float]]]:
        found = find_checkpoint(folder)
        bundle = open_bundle(folder / "bundle")
        assert read_checkpoint_metadata(found)["bundle"] == bundle.digest
        settings = resumed_settings(folder)
        result = train(bundle, tiny_data, settings, cpu, output=folder, resume=found)
        assert result.steps == 40
        assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"bundle", "metrics.jsonl", "step"}
        return state_of(folder)

    old(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    moments = killer.run(lambda: new(tmp_path / "new"))
    whole = {"old": state_of(tmp_path / "old"), "new": state_of(tmp_path / "new")}
    assert whole["old"] != whole["new"]
    assert moments > 30
    ended = []
    for moment in range(moments):
        folder = tmp_path / "killed"
        shutil.copytree(tmp_path / "old", folder)
        killer.run(lambda folder=folder: new(folder), at=moment)  # type: ignore[misc]
        state = resumed(folder)
        ended.append(next(name for name, each in whole.items() if each == state))
        shutil.rmtree(folder)
    assert ended == sorted(ended, reverse=True), "there is one moment of replacement"
    assert set(ended) == {"old", "new"}


def test_a_killed_return_to_an_earlier_checkpoint_is_no_mixture(
    bundles: tuple[Path, Path], tiny_data: Dataset, cpu: Device, tmp_path: Path, killer: Killer
) -> None:
    bundle = open_bundle(bundles[0])
    train(bundle, tiny_data, OLD, cpu, output=tmp_path / "old")
    again = dataclasses.replace(OLD, learning_rate=0.01)

    def back(folder: Path) -> None:
        resume = folder / "step-00000020.safetensors"
        train(bundle, tiny_data, again, cpu, output=folder, resume=resume, overwrite=True)

    shutil.copytree(tmp_path / "old", tmp_path / "new")
    moments = killer.run(lambda: back(tmp_path / "new"))
    whole = [state_of(tmp_path / "old"), state_of(tmp_path / "new")]
    for moment in range(moments):
        folder = tmp_path / "killed"
        shutil.copytree(tmp_path / "old", folder)
        killer.run(lambda folder=folder: back(folder), at=moment)  # type: ignore[misc]
        train(bundle, tiny_data, resumed_settings(folder), cpu, output=folder, resume=folder)
        assert state_of(folder) in whole
        shutil.rmtree(folder)


def test_a_folder_whose_bundle_is_another_is_refused(
    bundles: tuple[Path, Path], tiny_data: Dataset, cpu: Device, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    """The bundle has the same names and shapes, so that only its hash differs."""
    first, second = bundles
    folder = tmp_path / "run"
    shutil.copytree(first, folder / "bundle")
    own = open_bundle(folder / "bundle")
    train(own, tiny_data, dataclasses.replace(OLD, max_steps=15), cpu, output=folder)
    shutil.rmtree(folder / "bundle")
    shutil.copytree(second, folder / "bundle")

    def resume(bundle: Bundle) -> object:
        return train(bundle, tiny_data, OLD, cpu, output=folder, resume=folder)

    message = refusal(UsageError, lambda: resume(open_bundle(folder / "bundle")))
    assert f"was trained from another bundle than {folder / 'bundle'}" in message
    assert "sonew run BUNDLE --resume" in message
    # A bundle that the user names may come from another compiler, for another device.
    resume(open_bundle(second))


def test_a_list_of_old_files_removes_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / ".replacing").mkdir(parents=True)
    kept = [tmp_path / "step-00000001.safetensors", folder / "photo.png", folder / "bundle" / "photo.png"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    names = ["../step-00000001.safetensors", "photo.png", "bundle", "step-00000009.safetensors"]
    (folder / ".replacing" / "old-files.json").write_text(json.dumps(names))
    (folder / ".replacing" / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 2.0}\n')
    assert [row["step"] for row in read_metrics(folder)] == [1]
    assert all(path.exists() for path in kept)
    assert not (folder / ".replacing").exists()


def test_a_replacement_that_cannot_be_finished_says_so(tmp_path: Path, refusal: Callable[..., str]) -> None:
    committed = tmp_path / "run" / ".replacing"
    committed.mkdir(parents=True)
    (committed / "old-files.json").write_text("nonsense")
    for read in (read_metrics, find_checkpoint):
        message = refusal(SonewError, lambda read=read: read(tmp_path / "run"))
        assert "holds a run that another one was about to replace" in message
    assert (committed / "old-files.json").exists()
