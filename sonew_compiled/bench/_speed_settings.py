"""The settings of the speed table, for `speed`, which makes it, and `_speed_tasks`, which measure."""

from __future__ import annotations

from dataclasses import dataclass

OTHER_POLICIES = ("bf16-mixed", "bf16-sr", "bf16-pure")
"""The policies besides bf16 whose steps are compared with that in float32."""


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """The settings of the measurements.

    Attributes:
      model: its name on the command line.
      batch_size: the examples in a step.
      pairs: the interleaved measurements of each ratio; the update alone and the runtime's loop take four times as
        many.
      growth_sides: the sides of the square matrices whose updates are compared, a million and a hundred million
        parameters.
      compiles: the number of compilations of the float32 step.
      starts: the number of starts of `sonew run`.
      data: the data set of `sonew run`; any that fits the model.
    """

    model: str = "autoencoder"
    batch_size: int = 1000
    pairs: int = 20
    growth_sides: tuple[int, int] = (1000, 10000)
    compiles: int = 3
    starts: int = 5
    data: str = "mnist-10k"
