"""Windows with one place along an axis, for which IREE without `trim-windows` reads wrong elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

# Size, window, stride, padding, dilation of the input and of the window; each has one place.
WINDOWS = [
    (5, 3, 3, (0, 0), 1, 1),
    (4, 2, 3, (0, 0), 1, 1),
    (3, 3, 3, (1, 1), 1, 1),
    (3, 3, 3, (0, 2), 1, 1),
    (5, 3, 9, (0, 0), 1, 1),
    (2, 2, 4, (0, 1), 2, 1),
    (2, 2, 5, (0, 0), 3, 1),
    (6, 2, 5, (0, 0), 1, 3),
    (4, 2, 9, (3, 0), 1, 1),
]
SIZES = sorted({size for size, *_ in WINDOWS})


def convolve(x: Any, w: Any, stride: int, padding: tuple[int, int], spread: int, dilation: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        (stride,),
        [padding],
        lhs_dilation=(spread,),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


def everything(*inputs: jax.Array) -> list[jax.Array]:
    """The convolutions, their gradients, sums and maxima of every row of the table."""
    of_size = dict(zip(SIZES, inputs, strict=True))
    found = []
    for size, window, *rest in WINDOWS:
        x = of_size[size]
        w = jnp.sin(1 + jnp.arange(window * 8.0)).reshape(window, 2, 4)
        found.append(convolve(x, w, *rest))
        found += jax.grad(lambda x, w, rest=rest: jnp.sin(convolve(x, w, *rest)).sum(), argnums=(0, 1))(x, w)
        stride, padding, spread, dilation = rest
        shape = {
            "window_dimensions": (1, window, 1),
            "window_strides": (1, stride, 1),
            "padding": ((0, 0), padding, (0, 0)),
            "base_dilation": (1, spread, 1),
            "window_dilation": (1, dilation, 1),
        }
        found += [lax.reduce_window(x, init, of, **shape) for init, of in ((0.0, lax.add), (-jnp.inf, lax.max))]
    plane = jnp.concatenate([of_size[5][..., None]] * 4, axis=-1).transpose(0, 1, 3, 2)
    found.append(lax.reduce_window(plane, 0.0, lax.add, (1, 3, 2, 1), (1, 3, 2, 1), "VALID"))
    return found


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_windows_with_one_place(on_iree: Callable[..., Any], target: str) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(3, size, 2)).astype(np.float32) for size in SIZES]
    wanted = jax.jit(everything)(*inputs)
    assert all(each.shape[1] == 1 for each in wanted[::5][: len(WINDOWS)])
    (got,) = on_iree(everything, *inputs, target=target)
    for number, (here, there) in enumerate(zip(got, wanted, strict=True)):
        # The gradients are sums of cosines, and IREE's cosine is some 1e-6 off. The fault is 0.5 and more.
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5, err_msg=f"result {number}")
