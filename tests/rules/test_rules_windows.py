"""The rules for windows and for the largest elements, against JAX's own lowering, element by element."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core.primitives import ge_p, le_p, select_and_scatter_add_p

from sonew_compiled.rules._approx_top_k import approx_top_k
from sonew_compiled.rules._pooling import select_and_scatter_add

# The operand's shape, the windows' sizes and strides, and the padding.
WINDOWS: dict[str, tuple[Any, ...]] = {
    "3 by 3, stride 2": ((2, 9, 8, 3), (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (0, 1), (0, 0))),
    "2 by 2, stride 2": ((2, 8, 6, 3), (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0),) * 4),
    "a remainder": ((2, 8, 7, 3), (1, 2, 2, 1), (1, 3, 2, 1), ((0, 0),) * 4),
    "stride 1": ((3, 7), (1, 4), (1, 1), ((0, 0), (2, 1))),
    "stride beyond the window": ((11,), (2,), (5,), ((1, 2),)),
    "a stride without a window": ((11, 4), (1, 2), (3, 1), ((0, 0), (0, 1))),
    "the whole axis": ((2, 5, 6), (1, 5, 6), (1, 1, 1), ((0, 0),) * 3),
    "of three axes": ((5, 6, 7), (3, 2, 3), (2, 1, 3), ((1, 1), (0, 1), (2, 0))),
    "padding alone in a window": ((4,), (2,), (2,), ((2, 2),)),
}


@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("select", [ge_p, le_p])
def test_the_gradient_of_a_pool_is_jaxs(case: str, dtype: str, select: Any) -> None:
    shape, window, strides, padding = WINDOWS[case]
    random = np.random.default_rng(0)
    # Few different values, so that most windows have ties.
    operand = jnp.asarray(random.integers(-2, 3, shape), dtype)
    out = lax.reduce_window(operand, -jnp.inf, lax.max, window, strides, padding).shape
    # Sums of whole numbers are exact in any order.
    source = jnp.asarray(random.integers(-8, 9, out), dtype)
    settings = {
        "select_prim": select,
        "window_dimensions": window,
        "window_strides": strides,
        "padding": padding,
    }
    want = select_and_scatter_add_p.bind(source, operand, **settings)
    np.testing.assert_array_equal(select_and_scatter_add(source, operand, **settings), want)


def test_minus_infinity_in_a_pool_is_chosen_like_any_number() -> None:
    operand = jnp.full((4,), -jnp.inf)
    settings = {"select_prim": ge_p, "window_dimensions": (2,), "window_strides": (2,), "padding": ((0, 0),)}
    want = np.array([3.0, 0.0, 5.0, 0.0])
    np.testing.assert_array_equal(select_and_scatter_add(jnp.array([3.0, 5.0]), operand, **settings), want)


@pytest.mark.parametrize("options", [{}, {"recall_target": 0.5}, {"aggregate_to_topk": False}], ids=str)
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("largest", [True, False])
def test_the_approximately_largest_are_jaxs(options: dict[str, Any], axis: int, largest: bool) -> None:
    operand = jax.random.permutation(jax.random.key(0), 700.0 - jnp.arange(1400.0)).reshape(2, 700)
    operand = operand if axis == -1 else operand.T
    of_jax = lax.approx_max_k if largest else lax.approx_min_k
    want = of_jax(operand, 3, reduction_dimension=axis, **options)
    settings = {"recall_target": 0.95, "reduction_input_size_override": -1, "aggregate_to_topk": True, **options}
    got = approx_top_k(operand, k=3, reduction_dimension=axis, is_max_k=largest, **settings)
    for ours, jaxs in zip(got, want, strict=True):
        np.testing.assert_array_equal(ours, jaxs)


def test_of_equal_elements_the_first_is_found() -> None:
    settings = {"k": 2, "reduction_dimension": 0, "recall_target": 0.95, "reduction_input_size_override": -1}
    for largest in (True, False):
        _, indices = approx_top_k(jnp.zeros(5), is_max_k=largest, aggregate_to_topk=True, **settings)
        np.testing.assert_array_equal(indices, [0, 1])
