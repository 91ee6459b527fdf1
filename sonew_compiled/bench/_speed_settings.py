"""What the speed table measures: for `speed`, which makes it, and `_speed_tasks`, which measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """What is measured.

    Attributes:
      model: its name on the command line.
      batch_size: examples in a step.
      pairs: interleaved measurements of every ratio; of the update alone and the runtime's loop four times as many.
      growth_sides: of the square matrices whose updates are compared: a million and a hundred million parameters.
      compiles: how often the float32 step is compiled.
      starts: how often `sonew run` is started.
      data: what `sonew run` starts on; any data set that fits the model.
    """

    model: str = "autoencoder"
    batch_size: int = 1000
    pairs: int = 20
    growth_sides: tuple[int, int] = (1000, 10000)
    compiles: int = 3
    starts: int = 5
    data: str = "mnist-10k"
