"""The picture of studies: the loss of each trial against each setting that was searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.bench.studies import Study
from sonew_compiled.errors import UsageError
from sonew_compiled.figures import legend_text, pyplot, save
from sonew_compiled.presets import record_of

# Inches of a panel.
_WIDTH, _HEIGHT = 3.0, 3.4
# From this ratio on numbers are drawn on a logarithmic axis.
_MANY = 10.0


def draw_studies(studies: Mapping[str, Study], output: Path) -> None:
    """Draws a row of panels for each study, a panel for each setting.

    A full point is a trial that was trained to the end, at its training loss, and the star the best of them. An empty
    one was stopped, at the mean loss of its last epoch. A color stands for a form of the optimizer.

    Args:
      studies: by the name to show.
      output: a .png, .svg or .pdf.

    Raises:
      UsageError: no trial of a study has a loss.
      SonewError: the file cannot be written.
    """
    for name, study in studies.items():
        if not any(_loss(trial) is not None for trial in study.each):
            raise UsageError(f"no trial of {name} has a loss to draw; give another study")
    columns = max(len(_numbers(study)) for study in studies.values())
    figure, panels = pyplot().subplots(
        len(studies),
        max(columns, 1),
        figsize=(_WIDTH * max(columns, 1) + 0.6, _HEIGHT * len(studies)),
        layout="constrained",
        squeeze=False,
    )
    for row, (name, study) in zip(panels, studies.items(), strict=True):
        names = _numbers(study)
        for axes in row[len(names) :]:
            axes.set_visible(False)
        for axes, setting in zip(row, names, strict=False):
            _draw(axes, study, setting)
        spent = f"{len(study.each)} trials, {study.epochs_spent:,} epochs"
        row[0].set_title(legend_text(f"{name}: {spent}"), loc="left", fontsize="medium")
        row[0].set_ylabel("loss, the best a star")
        row[0].legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(0.0, -0.22))
    save(figure, output)


def _numbers(study: Study) -> list[str]:
    """The settings that are drawn, the learning rate at least."""
    names = [name for name in study.searched if all(_is_number(trial.get(name)) for trial in study.each)]
    return names or ["learning_rate"]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _loss(trial: Mapping[str, Any]) -> float | None:
    """The training loss, or that of the last epoch of a trial that was stopped."""
    loss = trial["train_loss"] if trial["train_loss"] is not None else trial.get("epoch_loss")
    return None if loss is None else float(loss)


def _draw(axes: Any, study: Study, setting: str) -> None:
    declared = record_of(study.optimizer).setting(setting)
    from_one = declared is not None and declared.from_one

    def points(trials: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
        drawn = [(each[setting], loss) for each in trials if (loss := _loss(each)) is not None]
        return [1 - x if from_one else x for x, _ in drawn], [y for _, y in drawn]

    words = [name for name in study.searched if name not in _numbers(study)]
    forms: dict[str, list[Mapping[str, Any]]] = {}
    for trial in study.each:
        forms.setdefault(", ".join(f"{name} {trial.get(name)}" for name in words), []).append(trial)
    for index, (form, trials) in enumerate(forms.items()):
        color = f"C{index}"
        whole = [trial for trial in trials if trial["train_loss"] is not None]
        stopped = [trial for trial in trials if trial["train_loss"] is None]
        axes.plot(*points(whole), "o", color=color, markersize=4, label=legend_text(f"{form} trained".strip()))
        axes.plot(*points(stopped), "o", color=color, markersize=4, fillstyle="none", alpha=0.6, label="stopped")
    axes.plot(*points(study.best_trials(1)), "*", color="black", markersize=11)
    losses = [loss for trial in study.each if (loss := _loss(trial)) is not None]
    axes.set(xscale="log", xlabel=f"1 - {setting}" if from_one else setting)
    _label_ticks(axes.xaxis)
    if min(losses) > 0 and max(losses) > _MANY * min(losses):
        axes.set_yscale("log")
        _label_ticks(axes.yaxis)
    axes.grid(which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _label_ticks(axis: Any) -> None:
    """Labels a logarithmic axis at 1, 2 and 5 of each decade, or at decades alone if they are many."""
    from matplotlib.ticker import LogLocator, NullFormatter

    least, most = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if most > _MANY**2.5 * least else (1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="major", labelsize="x-small")
