"""The parameters that are trained, and those that are held: integers, booleans, and what a user freezes.

No gradient is computed for a parameter that is held, and no optimizer keeps a state for it. It stays in the training
state, and so in checkpoints, as `init` made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.contract import Role, path_in_tree
from sonew_compiled.errors import UsageError
from sonew_compiled.requirements import names_of
from sonew_compiled.step_settings import check_matches

Tree = Any


@dataclass(frozen=True)
class Held:
    """The choice of parameters to hold.

    Attributes:
      patterns: patterns of paths, such as `encoder/*`; a parameter that one of them matches is frozen.
    """

    patterns: Sequence[str] = ()

    def split(self, params: Tree) -> tuple[Tree, Tree]:
        """The trained and the held parameters: two trees like the one given, each with None for the other's leaves.

        Raises:
          UsageError: a pattern matches no parameter, or nothing is left to train.
        """
        paths = paths_of(params)
        check_matches("freeze", self.patterns, paths)
        tree: Any
        leaves, tree = jax.tree.flatten(params)
        held = [
            not jnp.issubdtype(leaf.dtype, jnp.inexact) or any(fnmatchcase(path, each) for each in self.patterns)
            for path, leaf in zip(paths, leaves, strict=True)
        ]
        if all(held):
            why = "all are frozen" if self.patterns else "all are integers or booleans"
            raise UsageError(f"no parameter is left to train: {why}; a model needs at least one floating-point array")
        both = list(zip(held, leaves, strict=True))
        return tree.unflatten([None if h else x for h, x in both]), tree.unflatten([x if h else None for h, x in both])


def joined(first: Tree, second: Tree) -> Tree:
    """The inverse of `Held.split`; a subtree without leaves may be missing in one of the trees."""
    return jax.tree.map(lambda one, other: other if one is None else one, first, second, is_leaf=lambda x: x is None)


def paths_of(params: Tree) -> list[str]:
    """The paths of parameters, without the root of their names; of a bare array the path is that root."""
    return [path_in_tree(name, Role.PARAMETER) for name in names_of({Role.PARAMETER.root: params})]
