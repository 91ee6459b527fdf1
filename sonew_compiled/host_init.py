"""`--init host`: a model's first parameters and state, computed when its bundle is compiled, as constants of the code.

The model's `init` then runs as plain Python, and may use what has no path to a device, such as NumPy and files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.errors import UsageError
from sonew_compiled.jax_settings import pinned_settings
from sonew_compiled.training_state import init_key

DEVICE, HOST = "device", "host"
PLACES = (DEVICE, HOST)

SEED = 0
"""The seed of the parameters that are kept, whatever the seed of a run is."""

MOST_BYTES = 64 << 20
"""The code for each target holds the constants; larger parameters belong into a file."""


def constant_init(init: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """An `init` that gives, for every key, what this one gives for the key of `SEED`.

    Args:
      init: gives the parameters, or `(params, state)`.

    Raises:
      UsageError: all arrays together take more than `MOST_BYTES`.
    """
    with pinned_settings():
        made = init(init_key(SEED))
    size = sum(_bytes(leaf) for leaf in jax.tree.leaves(made))
    if size > MOST_BYTES:
        raise UsageError(
            f"--init host would put {size:,} bytes of parameters into the code, where {MOST_BYTES:,} is the most; save "
            "them with sonew_compiled.save_weights, let init give zeros, and give the file as --params"
        )
    return lambda key: made


def _bytes(leaf: Any) -> int:
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return int(getattr(jax.random.key_data(leaf) if is_key else leaf, "nbytes", 0))
