"""JAX's settings for tracing, independent of the user's environment and of `jax.config`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import jax

_PINNED: ContextVar[bool] = ContextVar("_PINNED", default=False)

# Settings for which JAX has no context manager; not every release has all of them.
_OTHERS: Mapping[str, Any] = MappingProxyType(
    {
        "jax_check_static_indices": False,
        "jax_check_tracer_leaks": False,
        "jax_custom_vjp3": False,
        "jax_error_checking_behavior_divide": "ignore",
        "jax_error_checking_behavior_nan": "ignore",
        "jax_error_checking_behavior_oob": "ignore",
        "jax_explicit_x64_dtypes": 1,
        "jax_high_dynamic_range_gumbel": False,
        "jax_no_tracing": False,
        "jax_random_seed_offset": 0,
        "jax_softmax_custom_jvp": False,
        "jax_use_direct_linearize": True,
    }
)

# What libtpu wants to know of a machine; it writes five lines to stderr if it does not.
_OF_NO_TPU: Mapping[str, str] = MappingProxyType(
    {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
)


@contextlib.contextmanager
def pinned_settings() -> Iterator[None]:
    """A context in which tracing gives the same module under any settings: in float32, for the processor.

    Other settings have JAX's defaults, and the user's settings are restored afterwards. If JAX cannot start the user's
    platforms, as with `JAX_PLATFORMS=cuda` on a machine without a GPU, it starts on the processor, since tracing needs
    no other device.
    """
    with contextlib.ExitStack() as stack:
        token = _PINNED.set(True)
        stack.callback(_PINNED.reset, token)
        for name, value in _OTHERS.items():
            if hasattr(jax.config, name) and (had := getattr(jax.config, name)) != value:
                jax.config.update(name, value)
                stack.callback(jax.config.update, name, had)
        stack.enter_context(_some_platform())
        for manager in (
            jax.enable_x64(False),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.disable_jit(False),
            jax.threefry_partitionable(True),
            jax.default_prng_impl("threefry2x32"),
            jax.enable_custom_prng(False),
            jax.legacy_prng_key("allow"),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.debug_key_reuse(False),
            jax.default_matmul_precision(None),
            jax.default_device(_processor()),
        ):
            stack.enter_context(manager)
        yield


def are_pinned() -> bool:
    """Whether a trace becomes a module of ours, and not a function that JAX compiles."""
    return _PINNED.get()


def platform() -> str:
    """The platform of JAX's default device, such as "cpu" or "gpu"."""
    device: Any = jax.config.jax_default_device  # type: ignore[attr-defined]  # JAX makes it at run time
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else str(device.platform)


def start_platforms() -> None:
    """Starts JAX's platforms, unless they run already; where there is no TPU, libtpu does not complain of that.

    When JAX is imported, it counts the TPUs and sets a variable if there are none. Where there is one, nothing is
    changed.

    Raises:
      RuntimeError, AssertionError: JAX cannot start a platform that the user has asked for.
    """
    has_no_tpu = os.environ.get("TPU_SKIP_MDS_QUERY") == "1"
    missing = {name: value for name, value in _OF_NO_TPU.items() if has_no_tpu and name not in os.environ}
    os.environ.update(missing)
    try:
        jax.devices()
    finally:
        for name in missing:
            os.environ.pop(name, None)  # another thread may have started JAX at the same time


@contextlib.contextmanager
def _some_platform() -> Iterator[None]:
    """A context with a platform on which JAX can keep the constants of a trace."""
    try:
        start_platforms()
    except (RuntimeError, AssertionError):  # the latter if two settings ask for platforms
        had = jax.config.values["jax_platforms"]
        jax.config.update("jax_platforms", "cpu")
        try:
            yield
        finally:
            jax.config.update("jax_platforms", had)
    else:
        yield


def _processor() -> jax.Device | None:
    """JAX's device for the processor; None if the user has excluded it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
