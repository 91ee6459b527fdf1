"""The training loop: batches in, checkpoints and metrics out."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.alike import check_alike, check_same_run
from sonew_compiled.runtime.best import Best
from sonew_compiled.runtime.bundle import Bundle, as_bundle
from sonew_compiled.runtime.checkpoint import Checkpoint, checkpoint_path, digest, find_checkpoint, first_not_finite
from sonew_compiled.runtime.data import Dataset, bind, load_dataset
from sonew_compiled.runtime.device import Device, as_device
from sonew_compiled.runtime.evaluate import Evaluation, check_evaluated, evaluate_all
from sonew_compiled.runtime.examples import Examples
from sonew_compiled.runtime.folder import RunFolder
from sonew_compiled.runtime.interruption import Interrupted, Interruption
from sonew_compiled.runtime.limits import check_trainable
from sonew_compiled.runtime.metrics import METRICS_FILE, EndMetrics, EpochMetrics
from sonew_compiled.runtime.nccl import Nccl
from sonew_compiled.runtime.program import Program
from sonew_compiled.runtime.reporter import Callbacks, Reporter
from sonew_compiled.runtime.resuming import header_of, load_to_resume, loss_sum
from sonew_compiled.runtime.schedule import rates_of
from sonew_compiled.runtime.shards import shards_of
from sonew_compiled.runtime.state import TrainingState
from sonew_compiled.runtime.stepper import stepper_of, training_batches
from sonew_compiled.runtime.train_result import TrainResult
from sonew_compiled.runtime.workers import Alone, WorkerLostError, Workers
from sonew_compiled.train_settings import TrainSettings


class DivergedError(SonewError):
    """The loss or the state became NaN or infinite; the last good checkpoint stays."""


# The message that the first Ctrl-C prints at once.
_NOTICE = "stopping: finishing the step and saving a checkpoint; Ctrl-C again ends at once, without them"


def train(
    bundle: Bundle | str | Path,
    dataset: Dataset | str,
    settings: TrainSettings,
    device: Device | str | None = None,
    *,
    output: str | Path | RunFolder,
    resume: str | Path | None = None,
    parameters: Mapping[str, np.ndarray] | None = None,
    overwrite: bool = False,
    on_step: Callable[[int, float], object] | None = None,
    on_epoch: Callable[[EpochMetrics], object] | None = None,
    on_checkpoint: Callable[[Path, int], object] | None = None,
    reporter: Reporter | None = None,
    resume_command: str | None = None,
    workers: Workers | None = None,
    shard_state: bool | None = None,
    nccl: Nccl | None = None,
) -> TrainResult:
    """Trains, writing `step-*.safetensors` and `metrics.jsonl` to `output`.

    On the processor, a run that is stopped and resumed ends with the same bits as one that is not.

    Args:
      bundle: the bundle to train, open or the path of one.
      dataset: its fields are bound to those of the bundle's batch by name; or what `load_dataset` takes.
      settings: the settings of the run; for a resumed run usually `resumed_settings(resume)` with some replaced.
      device: the device that computes, open or a name as `open_device` takes it.
      output: the run's directory, which is made if necessary. No other process can train into it meanwhile.
      resume: a checkpoint from which to continue, or a directory for the latest one in it.
      parameters: the weights to start from, as `load_weights` gives them; by default those of the bundle.
      overwrite: whether to replace another run in `output`, or what came there after `resume`, once there is a
        checkpoint to take its place.
      on_step: is called after each step with the number of steps done and the loss of its batch before the update.
      on_epoch: is called after each epoch with its line of `metrics.jsonl`.
      on_checkpoint: is called with the path of each checkpoint once it is written, and its step. Worker 0 alone calls
        these three functions. An exception in one of them ends the run, and is raised.
      reporter: shows the progress, such as that of `make_reporter`; by default nothing is shown.
      resume_command: the command line that continues this run, for the user who stops it.
      workers: the workers that train together, each of which calls this function; by default this process alone. The
        number of workers changes no bit of the result. Worker 0 writes the files.
      shard_state: whether each worker keeps the optimizer's state of its own tensors only, which changes no bit either.
      nccl: what adds the buckets of workers with a GPU each; by default they go through the host.

    Raises:
      InUseError: another process works in `output`.
      UsageError: the settings or the data do not fit the bundle, or `output` holds the checkpoints of another run.
      DivergedError: the loss or the state became NaN or infinite.
      Interrupted: SIGINT or SIGTERM came; a checkpoint of the last step was saved.
      SonewError: a file is damaged or cannot be written, or the device failed.
    """
    bundle, device = as_bundle(bundle), as_device(device)
    dataset = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    folder = output if isinstance(output, RunFolder) else RunFolder(output)
    if resume_command is None:
        resume_command = folder.resume_command(bundle.path, data=dataset.name, device=device.name, settings=settings)
    workers = workers or Alone()
    if workers.rank:
        reporter = on_step = on_epoch = on_checkpoint = None
    with folder.hold() if workers.rank == 0 else contextlib.nullcontext():
        workers.meet()
        try:
            run = _Run(
                bundle,
                dataset,
                settings,
                device,
                folder,
                resume,
                parameters,
                overwrite,
                Callbacks(reporter or Reporter(), on_step=on_step, on_epoch=on_epoch, on_checkpoint=on_checkpoint),
                resume_command,
                workers,
                shard_state,
                nccl,
            )
            notice = "" if workers.rank else _NOTICE
            with run.reporter, Interruption(sent_on=workers.count > 1, notice=notice) as interruption:
                try:
                    run.train(interruption)
                    return run.result(interruption)
                except WorkerLostError as lost:
                    raise run.saved_without(lost) from None
        finally:
            if workers.rank == 0:
                folder.discard()


class _Run:
    """One call of `train`: everything is checked when it is made."""

    def __init__(
        self,
        bundle: Bundle,
        dataset: Dataset,
        settings: TrainSettings,
        device: Device,
        folder: RunFolder,
        resume: str | Path | None,
        parameters: Mapping[str, np.ndarray] | None,
        overwrite: bool,
        reporter: Reporter,
        resume_command: str,
        workers: Workers,
        shard_state: bool | None,
        nccl: Nccl | None,
    ) -> None:
        manifest = bundle.manifest
        check_trainable(manifest, bundle.path)
        if resume is not None and parameters is not None:
            raise UsageError("a resumed run has its own parameters; start another run from the given ones")
        self.workers = workers
        self.folder = folder
        self.reporter = reporter
        self.resume_command = resume_command
        self.data = bind(dataset.train, manifest.batch, manifest.classes)
        test_data = bind(dataset.test, manifest.batch, manifest.classes)
        self.steps_per_epoch = self.data.steps_per_epoch
        check_evaluated(manifest, test_data)
        self.settings = settings = settings.with_warmup(self.steps_per_epoch)
        self.rates = rates_of(settings, self.steps_per_epoch)
        self.steps = settings.epochs * self.steps_per_epoch
        of_bundle = header_of(bundle, data=dataset.name, fingerprint=dataset.fingerprint)
        self.header = {**settings.to_metadata(), **of_bundle}
        self.step, self.loss_sum = 0, 0.0  # steps done, and the sum over the epoch's batches so far
        self.is_open = False  # whether the epoch of the last step has to end: a worker can be lost in its evaluation
        self.best = Best()
        self.evaluated: tuple[int, Evaluation] | None = None  # the step and the result of the last evaluation
        self.last_good: Path | None = None
        resumed = None if resume is None else find_checkpoint(resume)
        checkpoint = None
        if resumed is not None:
            checkpoint = load_to_resume(
                resumed, bundle, self.header, settings=settings, steps_per_epoch=self.steps_per_epoch
            )
            self.best = Best.from_metadata(checkpoint.settings, source=resumed)
            self.loss_sum = loss_sum(resumed, checkpoint)
            self.step = checkpoint.step
            self.is_open = self.loss_sum != 0 and self.step % self.steps_per_epoch == 0
        if workers.rank == 0:
            folder.check_free(resumed, overwrite=overwrite)
        self.program = Program.load(bundle, device)
        self.shards = shards_of(self.program, workers, asked=shard_state, is_exchanged_elsewhere=nccl is not None)
        self.stepper = stepper_of(self.program, workers, self.shards, nccl)
        splits = (Examples(self.program, each, copies=workers.count) for each in (self.data, test_data))
        self.examples, self.test_examples = splits
        if checkpoint is None:
            self.state = TrainingState.initial(
                self.program, seed=settings.seed, parameters=parameters, learning_rate=settings.learning_rate
            )
        else:
            self.state = TrainingState.from_arrays(self.program, checkpoint.tensors)
            self.last_good = resumed
        self.first_step = self.step
        self.saved_step = -1 if checkpoint is None or self.is_open else self.step
        check_same_run(
            workers, self.program, self.state, header=self.header, settings=settings, is_divided=self.shards is not None
        )
        if self.shards is not None:
            self.state.keep(self.shards.held)
        self.files = (
            folder.open(bundle, step=self.step, resumed=resumed, overwrite=overwrite) if workers.rank == 0 else None
        )
        self.seconds = 0.0

    def train(self, interruption: Interruption) -> None:
        """Runs the steps that are left."""
        stop = min(self.steps, self.settings.max_steps or self.steps)
        every = self.settings.checkpoint_every * self.steps_per_epoch
        start = epoch_start = time.perf_counter()
        epoch_first_step = self.step
        paused = 0.0  # seconds of evaluation
        self.reporter.begin(
            step=self.step,
            steps=stop,
            epochs=self.settings.epochs,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.data.batch_size,
        )
        coming = training_batches(self.stepper, self.examples, self.settings.seed, self.step)
        with contextlib.closing(coming) as batches:
            while True:
                if self.is_open and self.step % self.steps_per_epoch == 0:
                    now = time.perf_counter()
                    on_test = self._evaluate(interruption)
                    metrics = EpochMetrics(
                        step=self.step,
                        epoch=self.step // self.steps_per_epoch,
                        loss=self.loss_sum / self.steps_per_epoch,
                        learning_rate=self.rates(self.step - 1),
                        seconds=now - start - paused,
                        examples_per_second=(self.step - epoch_first_step) * self.data.batch_size / (now - epoch_start),
                        test_loss=on_test.loss if on_test else None,
                        test_metrics=on_test.metrics if on_test else {},
                    )
                    epoch_start, epoch_first_step, self.loss_sum = time.perf_counter(), self.step, 0.0
                    self.is_open = False
                    paused += epoch_start - now
                    # The line is written before the checkpoint. A resumed run drops a line too many, but would never
                    # write a missing one.
                    if self.files is not None:
                        self.files.append(metrics)
                    self.reporter.epoch(metrics)
                    is_best = self.settings.keep_best and self.best.step == self.step
                    if (self.step % every == 0 and self.step < stop) or is_best:
                        self._save()
                if self.step >= stop or self.is_over or self.workers.stopped(interruption.requested):
                    break
                loss = self.stepper.step(self.state, next(batches), self.rates(self.step))
                self.step += 1
                if not math.isfinite(loss):
                    raise self._diverged(f"the loss became {loss} at step {self.step}")
                self.loss_sum += loss
                self.is_open = True
                self.reporter.step(step=self.step, loss=loss)
        self.seconds = time.perf_counter() - start - paused
        if self.saved_step != self.step:
            self._save()
        if self.workers.stopped(interruption.requested) and self.step < stop and not self.is_over:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"stopped after step {self.step} of {self.steps}, saved {self.last_good}; go on with: {self.resume_command}"
        )

    @property
    def is_over(self) -> bool:
        """Whether `--patience` ends the run."""
        return self.best.is_over(self.settings.patience)

    def _evaluate(self, interruption: Interruption) -> Evaluation | None:
        """The evaluation at the end of an epoch, if it has one. A worker that is alone saves the epoch if it fails."""
        every = self.settings.evaluate_every
        if not every or (self.step // self.steps_per_epoch % every and self.step < self.steps):
            return None
        workers = self.workers

        def check() -> None:
            if interruption.requested and workers.count == 1:
                raise self._interrupted()

        try:
            on_test = evaluate_all(self.program, self.state.buffers, self.test_examples, each=check, workers=workers)
        except SonewError as error:
            if workers.count > 1:
                raise
            self._save()
            stopped = isinstance(error, Interrupted)
            raise self._interrupted() if stopped else type(error)(f"{error}; {self._way_back()}") from None
        self.best = self.best.after(on_test.loss, self.step)
        self.evaluated = (self.step, on_test)
        return on_test

    def result(self, interruption: Interruption) -> TrainResult:
        """The losses over both splits."""
        assert self.last_good is not None
        saved = self.last_good

        def check() -> None:
            if interruption.requested:
                raise Interrupted(
                    f"stopped after the last step, {self.step}, in computing the losses; training is saved in {saved}; "
                    f"compute them with: {self.resume_command}"
                )

        def evaluated(data: Examples) -> Evaluation:
            return evaluate_all(self.program, self.state.buffers, data, each=check, workers=self.workers)

        on_train = evaluated(self.examples)
        on_test = last[1] if (last := self.evaluated) and last[0] == self.step else evaluated(self.test_examples)
        if on_test.metrics and self.files is not None:
            self.files.append(
                EndMetrics(
                    step=self.step,
                    train_loss=on_train.loss,
                    test_loss=on_test.loss,
                    train_metrics=on_train.metrics,
                    test_metrics=on_test.metrics,
                )
            )
        images = (self.step - self.first_step) * self.data.batch_size
        return TrainResult(
            on_train=on_train,
            on_test=on_test,
            steps=self.step,
            seconds=self.seconds,
            examples_per_second=images / self.seconds if images else 0.0,
            checkpoint=saved,
            best_test_loss=self.best.loss if self.best.step else None,
            best_checkpoint=self._best_checkpoint(),
            stopped_early=self.is_over and self.step < self.steps,
            metrics=self.folder.path / METRICS_FILE,
            bundle=self.folder.place_of(self.program.bundle.path),
            target=self.program.target.name,
            device=self.program.device.name,
        )

    def _best_checkpoint(self) -> Path | None:
        path = checkpoint_path(self.folder.path, self.best.step)
        return path if self.settings.keep_best and self.best.step and path.exists() else None

    def saved_without(self, lost: WorkerLostError) -> SonewError:
        """Saves the last whole step, which all have unless the state is divided, and returns the error that says so."""
        if self.shards is not None or 0 in lost.ranks:
            return SonewError(f"{lost}; {self._way_back()}")
        if self.files is not None and self.step > self.saved_step:
            self._write(self.state.download())
        return SonewError(
            f"{lost}; the last whole step, {self.step} of {self.steps}, is in {self.last_good}; "
            f"go on with: {self.resume_command}"
        )

    def _save(self) -> None:
        tensors = self.state.download()
        # The loss of a step is that before its update: it can be finite where the state is not any more.
        name = first_not_finite(tensors)
        if self.shards is not None:
            name = next(filter(None, self.workers.gather(name)), "")
        if name:
            raise self._diverged(f"{name!r} became NaN or infinite by step {self.step}")
        if self.workers.count > 1:
            of_all = tensors.keys() - (self.shards.owners if self.shards else {}).keys()
            what = f"a state after step {self.step} with digest"
            remedy = f"their machines compute differently; {self._way_back()}"
            check_alike(self.workers, {what: digest({name: tensors[name] for name in of_all})}, remedy=remedy)
        if self.shards is not None:
            tensors = self.shards.whole(tensors)
        self._write(tensors)

    def _write(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.saved_step = self.step
        if self.files is None:
            self.last_good = checkpoint_path(self.folder.path, self.step)
            return
        settings = {**self.header, "epoch_loss_sum": repr(self.loss_sum)}
        if self.best.step:
            settings |= self.best.to_metadata()
        kept = self.best.step if self.settings.keep_best else None
        checkpoint = Checkpoint(step=self.step, tensors=tensors, settings=settings)
        try:
            self.last_good = self.files.save(checkpoint, self.program.manifest, keep=self.settings.keep, best=kept)
        except SonewError as error:
            raise SonewError(f"{error}; {self._way_back()}") from None
        self.reporter.checkpoint(self.last_good, step=self.step)

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} of {self.steps}: lower --learning-rate, now {self.settings.learning_rate:g}; {self._way_back()}"
        )

    def _way_back(self) -> str:
        return f"the last good checkpoint is {self.last_good}" if self.last_good else "there is no checkpoint yet"
