"""A run's folder: the bundle it was trained from if `sonew run` compiled it, its checkpoints, and its metrics.

bundle/                  made by `sonew run` without a BUNDLE
step-*.safetensors       the checkpoints that are kept
metrics.jsonl            a line for each epoch
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sonew_compiled.contract import MANIFEST_FILE
from sonew_compiled.errors import UsageError
from sonew_compiled.runtime import replacement
from sonew_compiled.runtime.bundle import Bundle
from sonew_compiled.runtime.checkpoint import (
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    prune,
    save_checkpoint,
)
from sonew_compiled.runtime.manifest import Manifest
from sonew_compiled.runtime.metrics import EndMetrics, EpochMetrics, MetricsFile
from sonew_compiled.runtime.older_bundle import is_replaceable, writable_bundle
from sonew_compiled.runtime.owner import owned
from sonew_compiled.runtime.shown import argument, quoted
from sonew_compiled.train_settings import TrainSettings


class RunFolder:
    """A folder that holds a run, will hold one, or holds one that another run will replace.

    Attributes:
      path: the folder.
      bundle: the place of the run's own bundle, if it has one.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.bundle = self.path / replacement.BUNDLE
        self._is_held = False

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other processes out of the folder; the process that holds it may hold it again.

        Raises:
          InUseError: another process works in the folder.
          SonewError: the folder cannot be written to, or a replacement in it cannot be finished.
        """
        if self._is_held:
            yield
            return
        with owned(self.path):
            self._is_held = True
            try:
                replacement.finish(self.path)
                yield
            finally:
                self._is_held = False

    def check_free(self, resumed: Path | None, *, overwrite: bool) -> None:
        """Checks that the folder holds no other run.

        Args:
          resumed: the checkpoint from which the run is resumed.
          overwrite: whether the run may replace another one, or the checkpoints that came after `resumed`.

        Raises:
          UsageError: the folder holds the checkpoints of another run, or later ones than `resumed`.
          SonewError: the replacement of that run was interrupted, and cannot be finished.
        """
        replacement.finish(self.path)
        self.refuse_other_run(resumed, overwrite=overwrite)

    def refuse_other_run(self, resumed: Path | None, *, overwrite: bool) -> None:
        """Checks the same as `check_free`, and changes no file: a replacement that was interrupted stays unfinished.

        Raises:
          UsageError: the folder holds the checkpoints of another run, or later ones than `resumed`.
        """
        if (self.path / MANIFEST_FILE).exists() and not self._holds(resumed):
            raise UsageError(f"{self.path} is a bundle, and a run takes a folder of its own: choose another --output")
        found = list_checkpoints(self.path)
        if not found or overwrite:
            return
        last = found[-1][1]
        if resumed is None or not self._holds(resumed):
            raise UsageError(
                f"{self.path} holds another run up to {last.name}: continue it with --resume "
                f"{argument(self.path)}, replace it with --overwrite, or choose another --output"
            )
        if last.resolve() != resumed.resolve():
            raise UsageError(
                f"{resumed} is not the last checkpoint of its run, which is {last.name}: replace what came after it "
                "with --overwrite, or choose another --output"
            )

    def place_for_bundle(self, *, overwrite: bool) -> Path:
        """The place for a new run's bundle, which is beside the bundle of a run that will be replaced.

        Raises:
          UsageError: the folder holds a run that must not be replaced, or foreign files in the bundle's place.
          SonewError: the folder cannot be written to.
        """
        self.check_free(None, overwrite=overwrite)
        if not list_checkpoints(self.path):
            return self.bundle
        if writable_bundle(self.bundle) != self.bundle:
            raise UsageError(
                f"{self.bundle} is a symbolic link, which another run's bundle cannot replace: remove it, or choose "
                "another --output"
            )
        replacement.discard(self.path)
        return replacement.gathering(self.path) / replacement.BUNDLE

    def place_of(self, bundle: Path) -> Path:
        """The place of a bundle once its run has a checkpoint."""
        return self.bundle if self._is_gathered(bundle) else bundle

    def owns(self, bundle: Path) -> bool:
        """Whether a bundle is, or will be, the folder's own, which `--resume` finds by itself."""
        return self.place_of(bundle).resolve() == self.bundle.resolve()

    def discard(self) -> None:
        """Removes the files gathered for a run that ended before its first checkpoint."""
        replacement.discard(self.path)

    def resume_command(
        self, bundle: Path, *, data: str, device: str, settings: TrainSettings, data_dir: Path | None = None
    ) -> str:
        """The command line that resumes the run; a checkpoint remembers all other settings.

        Args:
          bundle: the bundle of the run.
          data: the data set's name.
          device: the device of the run.
          settings: the settings of the run.
          data_dir: the folder of the data's files, if it is not a usual one.
        """
        words = ["sonew", "run", *([] if self.owns(bundle) else [argument(bundle)]), "--resume", argument(self.path)]
        words += ["--data", argument(data), *([] if data_dir is None else ["--data-dir", argument(data_dir)])]
        return " ".join([*words, "--device", *map(quoted, [device, *settings.flags()])])

    def open(self, bundle: Bundle, *, step: int, resumed: Path | None, overwrite: bool) -> RunWriter:
        """Prepares the folder for a run.

        Args:
          bundle: the bundle of the run.
          step: the training steps that were done before.
          resumed: the checkpoint from which the run is resumed.
          overwrite: whether the run may replace another one here, or the checkpoints that came after `resumed`.

        Raises:
          UsageError: the folder holds another run or later checkpoints, which may not be replaced.
          SonewError: a file cannot be read or written.
        """
        self.check_free(resumed, overwrite=overwrite)
        if not self._is_gathered(bundle.path):
            replacement.discard(self.path)
        # The checkpoints of the run that this one replaces, or of the steps that it repeats.
        goes_on_after = step if self._holds(resumed) else -1
        stale = [path.name for at, path in list_checkpoints(self.path) if at > goes_on_after]
        # A bundle beside the replaced checkpoints would be mistaken for that of the new ones.
        own_is_used = bundle.path.resolve() == self.bundle.resolve()
        is_other = overwrite and not self._holds(resumed)
        if is_other and self.bundle.is_dir() and not own_is_used and is_replaceable(self.bundle):
            stale.append(self.bundle.name)
        source = self.path if resumed is None else resumed.parent
        replaces = bool(stale) or self._is_gathered(bundle.path)
        return RunWriter(self.path, stale=stale if replaces else None, metrics_of=source, step=step)

    def _holds(self, checkpoint: Path | None) -> bool:
        return checkpoint is not None and checkpoint.parent.resolve() == self.path.resolve()

    def _is_gathered(self, bundle: Path) -> bool:
        return bundle.parent.resolve() == replacement.gathering(self.path).resolve()


class RunWriter:
    """Writes the checkpoints and metrics of one run.

    The files that the run replaces stay until its first checkpoint, and its metrics stay in memory until then. So the
    old run is whole until the new one is.
    """

    def __init__(self, path: Path, *, stale: list[str] | None, metrics_of: Path, step: int) -> None:
        """Prepares to write.

        Args:
          path: the folder.
          stale: the names of the files that the first checkpoint replaces there; None if it replaces nothing.
          metrics_of: the folder of the run whose metrics up to `step` are the start of this one's.
          step: the training steps that were done before.

        Raises:
          SonewError: the metrics cannot be read or written.
        """
        self._path = path
        self._stale = stale
        self._metrics = MetricsFile(path, step=step, source=metrics_of, hold=stale is not None)

    def append(self, metrics: EpochMetrics | EndMetrics) -> None:
        """Adds a line to the file of metrics.

        Raises:
          SonewError: it cannot be written.
        """
        self._metrics.append(metrics)

    def save(self, checkpoint: Checkpoint, manifest: Manifest, *, keep: int, best: int | None = None) -> Path:
        """Writes a checkpoint, and removes what it replaces and all but the last `keep` and that of step `best`.

        Raises:
          SonewError: the checkpoint cannot be written; the old files stay.
        """
        if self._stale is not None:
            new = replacement.gathering(self._path)
            save_checkpoint(new, checkpoint, manifest)
            self._metrics.release(new)
            replacement.replace(self._path, self._stale)
            self._stale = None
        else:
            save_checkpoint(self._path, checkpoint, manifest)
        prune(self._path, keep, best)
        return checkpoint_path(self._path, checkpoint.step)
