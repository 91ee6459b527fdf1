"""The bytes that an update and a step must move, from which rooflines are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sonew_compiled.contract import STATE_ROLES, Role
from sonew_compiled.presets import OptimizerSettings, Value, record_of
from sonew_compiled.runtime.manifest import FunctionSpec


def update_bytes(
    optimizer: str, *, parameters: int, state: int, gradients: int, settings: Mapping[str, Value] = MappingProxyType({})
) -> int:
    """The bytes that one update must move between memory and the processor.

    An update in one pass reads the gradients, reads and writes the parameters, and reads and writes the state:
    `gradients + 2 parameters + 2 state`. A grafted direction is applied only once its length is known, so it takes two
    passes. The first reads the gradients and the state and writes the state. The second reads the state again, and
    reads and writes the parameters: `gradients + 2 parameters + 3 state`. For tridiagonal SONew in float32, with a
    momentum and two bands, that is 4 + 8 + 36 = 48 bytes a parameter; for band 4, 4 + 8 + 72 = 84; for Adam 4 + 8 + 16
    = 28.

    Args:
      optimizer: its name in `presets`.
      parameters: the bytes of the stored parameters.
      state: the bytes of the optimizer's state.
      gradients: the bytes of the gradients that the update takes.
      settings: settings of the optimizer that differ from those that ship.
    """
    return gradients + 2 * parameters + (3 if record_of(optimizer).grafts(settings) else 2) * state


def update_function_bytes(optimizer: OptimizerSettings, step: FunctionSpec) -> int:
    """`update_bytes` of an update-only function, from the roles of its tensors."""

    def nbytes(*roles: Role) -> int:
        return sum(spec.nbytes for spec in step.inputs if spec.role in roles)

    return update_bytes(
        optimizer.name,
        settings=optimizer.values,
        parameters=nbytes(Role.PARAMETER),
        state=nbytes(*(role for role in STATE_ROLES if role != Role.PARAMETER)),
        gradients=nbytes(Role.GRADIENT),
    )


def step_bytes(step: FunctionSpec) -> int:
    """The fewest bytes that a step can move: every argument and every result once."""
    return sum(spec.nbytes for spec in (*step.inputs, *step.outputs))
