"""Manifests of format version 1, which have no roles; the roles are derived from the names of the tensors.

They have no labels either, and no decays that must be checked.
"""

from __future__ import annotations

from typing import Any

from sonew_compiled import contract
from sonew_compiled.contract import Role

_SCALARS = {
    contract.SEED: Role.SEED,
    contract.LEARNING_RATE: Role.LEARNING_RATE,
    contract.LOSS: Role.LOSS,
    contract.LOSSES: Role.LOSS,
    contract.PREDICTION: Role.PREDICTION,
}


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest that `MANIFEST_1` has checked, with the fields of later format versions."""
    functions = manifest["functions"]
    state = {tensor["name"] for tensor in functions.get(contract.INIT, {"outputs": []})["outputs"]}
    with_roles = {
        name: {
            key: [{**tensor, "role": _role(tensor["name"], state).value} for tensor in tensors]
            for key, tensors in function.items()
        }
        for name, function in functions.items()
    }
    return {"classes": {}, "setting_limits": {}, **manifest, "functions": with_roles}


def _role(name: str, state: set[str]) -> Role:
    if Role.PARAMETER.holds(name):
        return Role.PARAMETER
    if name in state:
        return Role.OPTIMIZER
    if Role.BATCH.holds(name):
        return Role.BATCH
    return _SCALARS.get(name, Role.SETTING)
