"""Products of many matrices read their own rows of the product before."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np


def test_the_scores_of_an_attention_are_numpys(on_iree: Callable[..., list[Any]]) -> None:
    rng = np.random.default_rng(0)
    x, q, k = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 6, 4), (4, 4), (4, 4)))

    def scores(x: Any, q: Any, k: Any) -> Any:
        return (x @ q) @ jnp.swapaxes(x @ k, 1, 2)

    (got,) = on_iree(scores, x, q, k)
    np.testing.assert_allclose(got, (x @ q) @ (x @ k).swapaxes(1, 2), rtol=1e-4, atol=1e-5)
