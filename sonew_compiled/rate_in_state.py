"""The learning rate in the state of an optimizer, which follows the schedule.

The rate is an input of every step, and `init` is compiled without one. An optimizer may still keep the rate in its
state, as `optax.inject_hyperparams(optax.adam)(learning_rate=rate)` does, or start from it, as `optax.rprop(rate)`
does:

- A tensor that depends on the rate alone, and that a step passes through, is computed again from each step's rate, so
  that it follows the schedule.
- For any other tensor that starts from the rate, `init` takes the rate as an input: the peak of the run's schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from sonew_compiled.errors import UsageError
from sonew_compiled.recurrence import Recurrence, dependents

State = dict[str, Any]
InitialState = Callable[..., State]


def refuse_settings(init_state: InitialState, settings: Sequence[str], names: Sequence[str], rate: Any) -> None:
    """Checks that the first state does not depend on a setting that only the steps take.

    Args:
      init_state: `init_state(seed, learning_rate, hyper)`.
      settings: the names in `hyper`.
      names: the names of the state's tensors.
      rate: the shape of a setting.

    Raises:
      UsageError: the first state depends on a setting.
    """
    for setting in settings:

        def first(value: Any, *, setting: str = setting) -> State:
            return init_state(0, 0.0, {setting: value})

        for name, depends in zip(names, dependents(jax.make_jaxpr(first)(rate), [0]), strict=True):
            if depends:
                raise UsageError(
                    f"{setting} cannot be a runtime setting: {name} starts from it; leave it out of runtime_settings, "
                    "so that it is compiled in"
                )


class RateInState:
    """The tensors of a state that depend on the learning rate.

    Attributes:
      starts: the names of the tensors for which `init` needs the rate.
    """

    def __init__(
        self, init_state: InitialState, names: Sequence[str], steps: Sequence[Recurrence], *, first: int, scalars: Any
    ) -> None:
        """Finds the tensors of `init_state(seed, learning_rate)`.

        Args:
          init_state: makes the state.
          names: the names of the state's tensors.
          steps: the recurrence of each tensor in a step.
          first: the number of the state's first tensor among the arguments of the step.
          scalars: the shapes of the seed and the rate.
        """
        closed = jax.make_jaxpr(init_state)(*scalars)
        of_rate, of_seed = dependents(closed, [1]), dependents(closed, [0])
        follows = {
            index
            for index, step in enumerate(steps)
            if of_rate[index] and not of_seed[index] and step.handed_through == first + index
        }
        self._init_state = init_state
        self._follows: Collection[int] = follows
        self.starts = [name for i, name in enumerate(names) if of_rate[i] and i not in follows]

    def refreshed(self, state: State, learning_rate: Any) -> State:
        """The state whose tensors that follow the schedule are computed from this step's rate."""
        if not self._follows:
            return state
        tree: Any
        leaves, tree = jax.tree.flatten(state)
        # XLA and IREE compute no other tensors of this state, since nothing reads them.
        fresh = jax.tree.leaves(self._init_state(0, learning_rate))
        result: State = tree.unflatten([fresh[i] if i in self._follows else leaf for i, leaf in enumerate(leaves)])
        return result
