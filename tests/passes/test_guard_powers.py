"""Powers of any numbers, against NumPy, on processors and in bytecode."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

BASES = np.array([-np.inf, -3, -1, -0.5, -0.0, 0, 0.5, 1, 2.5, np.inf, np.nan], np.float32)
EXPONENTS = np.array([-np.inf, -3, -2, -1.5, -1, 0, 0.5, 1, 2, 3, 4.5, np.inf, np.nan], np.float32)


@pytest.mark.parametrize("target", ["cpu", "vmvx"])
def test_powers_are_numpys(on_iree: Callable[..., list[Any]], target: str) -> None:
    base, exponent = (each.ravel() for each in np.meshgrid(BASES, EXPONENTS))

    def function(x: Any, y: Any) -> Any:
        return jnp.power(x, y), [jnp.power(x, float(each)) for each in EXPONENTS[:-1]]

    ((computed, constant),) = on_iree(function, base, exponent, target=target)
    with np.errstate(all="ignore"):
        wanted = np.power(base, exponent)
        np.testing.assert_allclose(computed, wanted, rtol=1e-5)
        signed = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(computed)[signed], np.signbit(wanted)[signed])
        for each, got in zip(EXPONENTS[:-1], constant, strict=True):
            np.testing.assert_allclose(got, np.power(base, np.full_like(base, each)), rtol=1e-5, err_msg=str(each))
