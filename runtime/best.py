"""The best test loss of a run so far, for `--keep-best` and `--patience`; checkpoints remember it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.shown import shown

# The most characters of a number.
_LONGEST = 40

_LOSS, _STEP, _SINCE = "best_test_loss", "best_step", "evaluations_since_best"


@dataclass(frozen=True, kw_only=True)
class Best:
    """The evaluation with the least test loss.

    Attributes:
      loss: the loss of the test split; infinite before the first evaluation.
      step: the training steps that were done then.
      since: the number of evaluations since then.
    """

    loss: float = math.inf
    step: int = 0
    since: int = 0

    def after(self, loss: float, step: int) -> Best:
        """The best after another evaluation. The first of equal losses is the best; NaN is never better."""
        if loss < self.loss:
            return Best(loss=loss, step=step)
        return Best(loss=self.loss, step=self.step, since=self.since + 1)

    def is_over(self, patience: int | None) -> bool:
        """Whether the last `patience` evaluations were no better."""
        return patience is not None and self.since >= patience

    def to_metadata(self) -> dict[str, str]:
        """The strings for the header of a checkpoint."""
        return {_LOSS: repr(self.loss), _STEP: str(self.step), _SINCE: str(self.since)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, source: Path) -> Best:
        """The best that `to_metadata` wrote; without it, the best of a run without evaluations.

        Raises:
          SonewError: the strings are no such numbers.
        """
        if _LOSS not in metadata:
            return cls()
        try:
            texts = [metadata[name] for name in (_LOSS, _STEP, _SINCE)]
            if max(map(len, texts)) > _LONGEST:
                raise ValueError(texts)
            loss, step, since = float(texts[0]), int(texts[1]), int(texts[2])
            if math.isnan(loss) or step < 0 or since < 0:
                raise ValueError(texts)
        except (KeyError, ValueError):
            raise SonewError(
                f"{source} has a best test loss of {shown(metadata[_LOSS])}, which is not a loss: it is corrupt"
            ) from None
        return cls(loss=loss, step=step, since=since)
