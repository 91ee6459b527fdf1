"""Convolutions as products, by StableHLO's reference interpreter, against XLA's convolutions."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from sonew_compiled import passes
from sonew_compiled.passes.ir.uses import operations_in

# The operand, the window, strides, padding, dilations of the operand and of the window, and the layout.
PLAIN = [
    ((2, 7, 6, 3), (3, 3, 3, 4), (1, 1), "SAME", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC")),
    ((2, 7, 6, 3), (3, 2, 3, 4), (2, 3), "VALID", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC")),
    ((2, 5, 4, 3), (1, 1, 3, 4), (1, 1), "VALID", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC")),
    ((2, 9, 9, 3), (1, 1, 3, 4), (2, 2), "VALID", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC")),
    ((2, 3, 8, 7), (4, 3, 3, 2), (2, 1), [(1, 2), (0, 1)], (1, 1), (1, 2), ("NCHW", "OIHW", "NCHW")),
    ((2, 3, 8, 7), (2, 2, 3, 4), (1, 1), "SAME", (1, 1), (1, 1), ("NCHW", "HWIO", "NHWC")),
    ((2, 4, 4, 3), (3, 3, 3, 4), (1, 1), [(2, 1), (1, 2)], (2, 3), (1, 1), ("NHWC", "HWIO", "NHWC")),
    ((2, 9, 8, 3), (2, 2, 3, 4), (1, 1), [(-1, -2), (0, -1)], (1, 1), (3, 2), ("NHWC", "HWIO", "NHWC")),
    ((3, 11, 2), (4, 2, 5), (3,), "SAME", (1,), (1,), ("NWC", "WIO", "NWC")),
    ((3, 2, 11), (5, 2, 4), (1,), "VALID", (1,), (2,), ("NCW", "OIW", "NCW")),
    ((2, 9, 8, 1), (3, 3, 1, 4), (2, 1), "SAME", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC")),
    # Channels first: with strides, with one feature, and with one feature and strides.
    ((2, 2, 9, 8), (6, 2, 3, 3), (2, 2), "SAME", (1, 1), (1, 1), ("NCHW", "OIHW", "NCHW")),
    ((2, 4, 6, 7), (1, 4, 3, 2), (1, 1), [(2, 1), (0, 1)], (1, 1), (1, 1), ("NCHW", "OIHW", "NCHW")),
    ((5, 3, 9, 8), (1, 3, 5, 5), (2, 1), [(1, 0), (0, 1)], (1, 1), (1, 1), ("NCHW", "OIHW", "NCHW")),
    ((2, 4, 5, 4, 2), (2, 3, 2, 2, 3), (1, 2, 1), "SAME", (1, 1, 1), (1, 1, 1), ("NDHWC", "DHWIO", "NDHWC")),
    # As many places as elements of the window, and fewer: as in the gradient of a window.
    ((2, 5, 3), (3, 3, 4), (1,), "VALID", (1,), (1,), ("NWC", "WIO", "NWC")),
    ((5, 6, 7, 2), (5, 5, 6, 3), (1, 1), "VALID", (1, 1), (1, 1), ("CHWN", "IHWO", "HWNC")),
]


def _convolve(row: Sequence[Any], operand: jax.Array, window: jax.Array, **options: Any) -> jax.Array:
    _, _, strides, padding, spread, dilation, layout = row
    return lax.conv_general_dilated(
        operand,
        window,
        strides,
        padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=layout,
        **options,
    )


def _unfolded(function: Any, *arguments: np.ndarray, options: str = "") -> ir.Module:
    module = passes.parse(jax.jit(function).lower(*arguments).as_text())
    passes.run_pipeline(module, [passes.parse_pass("unfold-convolutions" + options)])
    return module


@pytest.mark.parametrize("row", PLAIN, ids=[str(number) for number in range(len(PLAIN))])
def test_a_convolution_and_its_gradients_are_products(row: Sequence[Any]) -> None:
    rng = np.random.default_rng(0)
    operand, window = (rng.integers(-4, 5, row[side]).astype(np.float32) for side in (0, 1))

    def everything(operand: jax.Array, window: jax.Array) -> Any:
        result = _convolve(row, operand, window)
        weights = jnp.arange(result.size, dtype=jnp.float32).reshape(result.shape) % 7
        return result, jax.grad(lambda *both: jnp.sum(_convolve(row, *both) * weights), argnums=(0, 1))(operand, window)

    module = _unfolded(everything, operand, window)
    assert "stablehlo.convolution" not in passes.to_text(module)
    with module.context:
        for op in operations_in(module.operation):
            if op.name == "flow.tensor.clone":  # the interpreter does not know it
                op.results[0].replace_all_uses_with(op.operands[0])
                op.erase()
        got = stablehlo.eval_module(module, [ir.DenseElementsAttr.get(each) for each in (operand, window)])
    for here, there in zip(got, jax.tree.leaves(jax.jit(everything)(operand, window)), strict=True):
        # Sums of small integers are exact in any order.
        np.testing.assert_array_equal(np.array(list(here)).reshape(there.shape), there)


def test_sums_of_16_bit_operands_keep_their_type() -> None:
    row = PLAIN[0]
    arguments = [np.zeros(row[side], jnp.bfloat16) for side in (0, 1)]
    text = passes.to_text(
        _unfolded(lambda *both: _convolve(row, *both, preferred_element_type=jnp.float32), *arguments)
    )
    assert "(tensor<84x27xbf16>, tensor<27x4xbf16>) -> tensor<84x4xf32>" in text


def test_other_convolutions_stay() -> None:
    rng = np.random.default_rng(0)
    grouped = np.ones((2, 6, 6, 4), np.float32), np.ones((3, 3, 1, 4), np.float32)
    whole = rng.integers(0, 9, (2, 7, 6, 3)), rng.integers(0, 9, (3, 3, 3, 4))
    plain = [each.astype(np.float32) for each in whole]
    modules = {
        "groups": _unfolded(lambda *both: _convolve(PLAIN[0], *both, feature_group_count=4), *grouped),
        "integers": _unfolded(lambda *both: _convolve(PLAIN[0], *both), *whole),
        "many positions": _unfolded(lambda *both: _convolve(PLAIN[0], *both), *plain, options=":positions=8"),
        "large": _unfolded(lambda *both: _convolve(PLAIN[0], *both), *plain, options=":elements=2267"),
    }
    for kind, module in modules.items():
        assert passes.to_text(module).count("stablehlo.convolution(") == 1, kind
    largest = _unfolded(lambda *both: _convolve(PLAIN[0], *both), *plain, options=":positions=9,elements=2268")
    assert "stablehlo.convolution(" not in passes.to_text(largest)
