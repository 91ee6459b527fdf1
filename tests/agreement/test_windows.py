"""Convolutions of every kind and pools, one by one: ten steps of a bundle are ten steps of `jax.jit`."""

import jax
import jax.numpy as jnp
import pytest
from agreement.case import Case
from agreement.rows import Table, row
from jax import lax

LINES = {"x": (3, 9, 4)}
IMAGES = {"x": (3, 8, 7, 2)}
VOLUMES = {"x": (2, 4, 5, 4, 2)}
NWC = ("NWC", "WIO", "NWC")
NHWC = ("NHWC", "HWIO", "NHWC")
NDHWC = ("NDHWC", "DHWIO", "NDHWC")


def conv(layout, *, strides=1, padding="SAME", **options):
    rank = len(layout[0]) - 2

    def output(p, b):
        return lax.conv_general_dilated(b["x"], p["k"], (strides,) * rank, padding, dimension_numbers=layout, **options)

    return output


def layout(names):
    """A convolution whose operands and result are transposed to a layout, from NHWC and HWIO."""

    def output(p, b):
        x = jnp.transpose(b["x"], [NHWC[0].index(each) for each in names[0]])
        k = jnp.transpose(p["k"], [NHWC[1].index(each) for each in names[1]])
        y = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=names)
        return jnp.transpose(y, [names[2].index(each) for each in NHWC[2]])

    return output


K3 = {"k": (3, 3, 2, 4)}

CONVOLUTIONS: dict[str, Case] = {
    "1D": row(conv(NWC), {"k": (3, 4, 5)}, batch=LINES),
    "1D, causal, dilated": row(conv(NWC, padding=((4, 0),), rhs_dilation=(2,)), {"k": (3, 4, 5)}, batch=LINES),
    "2D": row(conv(NHWC), K3, batch=IMAGES),
    "2D, valid": row(conv(NHWC, padding="VALID"), K3, batch=IMAGES),
    "2D, of points": row(conv(NHWC), {"k": (1, 1, 2, 4)}, batch=IMAGES),
    "2D, strided": row(conv(NHWC, strides=2), K3, batch=IMAGES),
    "2D, dilated": row(conv(NHWC, rhs_dilation=(2, 2)), K3, batch=IMAGES),
    "2D, uneven padding": row(conv(NHWC, padding=((2, 0), (0, 3))), K3, batch=IMAGES),
    "2D, large window": row(conv(NHWC, padding=((2, 2), (2, 2))), {"k": (5, 4, 2, 3)}, batch=IMAGES),
    "grouped": row(conv(NWC, feature_group_count=2), {"k": (3, 2, 6)}, batch=LINES),
    "depthwise": row(conv(NHWC, feature_group_count=2), {"k": (3, 3, 1, 2)}, batch=IMAGES),
    "depthwise, multiplied": row(conv(NHWC, feature_group_count=2), {"k": (3, 3, 1, 6)}, batch=IMAGES),
    "separable": row(
        lambda p, b: lax.conv_general_dilated(
            lax.conv_general_dilated(b["x"], p["d"], (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=2),
            p["k"],
            (1, 1),
            "SAME",
            dimension_numbers=NHWC,
        ),
        {"d": (3, 3, 1, 2), "k": (1, 1, 2, 4)},
        batch=IMAGES,
    ),
    "transposed": row(
        lambda p, b: lax.conv_transpose(b["x"], p["k"], (2, 2), "SAME", dimension_numbers=NHWC), K3, batch=IMAGES
    ),
    "transposed, valid, 1D": row(
        lambda p, b: lax.conv_transpose(b["x"], p["k"], (3,), "VALID", dimension_numbers=NWC),
        {"k": (2, 4, 3)},
        batch=LINES,
    ),
    "3D": row(conv(NDHWC), {"k": (2, 3, 2, 2, 3)}, batch=VOLUMES),
    "3D, strided": row(conv(NDHWC, strides=2), {"k": (2, 3, 2, 2, 3)}, batch=VOLUMES),
    "NCHW": row(layout(("NCHW", "OIHW", "NCHW")), K3, batch=IMAGES),
    "HWNC": row(layout(("HWNC", "HWOI", "CNHW")), K3, batch=IMAGES),
    "patches": row(
        lambda p, b: lax.conv_general_dilated_patches(b["x"] * p["s"], (2, 2), (2, 2), "VALID", dimension_numbers=NHWC),
        {"s": (2,)},
        batch=IMAGES,
    ),
    "two layers": row(
        lambda p, b: conv(NHWC)({"k": p["l"]}, {"x": jax.nn.relu(conv(NHWC)(p, b))}),
        {"k": (3, 3, 2, 4), "l": (3, 3, 4, 2)},
        batch=IMAGES,
    ),
    "groups of the batch": row(
        lambda p, b: lax.conv_general_dilated(
            p["v"], p["k"], (1, 1), "SAME", dimension_numbers=NHWC, batch_group_count=2
        ),
        {"v": (4, 5, 5, 3), "k": (3, 3, 3, 4)},
    ),
}


def pool(operation, start, window, stride, padding="SAME", **options):
    def output(p, b):
        x = jnp.sin(b["x"] * p["s"]) + b["x"]
        return lax.reduce_window(
            x, start, operation, (1, window, window, 1), (1, stride, stride, 1), padding, **options
        )

    return output


POOLS: dict[str, Case] = {
    "max": row(pool(lax.max, -jnp.inf, 2, 2), {"s": (2,)}, batch=IMAGES),
    "max, overlapping": row(pool(lax.max, -jnp.inf, 3, 2), {"s": (2,)}, batch=IMAGES),
    "max, overlapping, valid": row(pool(lax.max, -jnp.inf, 3, 1, "VALID"), {"s": (2,)}, batch=IMAGES),
    "max, gaps": row(pool(lax.max, -jnp.inf, 2, 3, "VALID"), {"s": (2,)}, batch=IMAGES),
    "min": row(pool(lax.min, jnp.inf, 2, 2), {"s": (2,)}, batch=IMAGES),
    "sum": row(pool(lax.add, 0.0, 2, 2), {"s": (2,)}, batch=IMAGES),
    "sum, overlapping": row(pool(lax.add, 0.0, 3, 2), {"s": (2,)}, batch=IMAGES),
    "sum, dilated": row(pool(lax.add, 0.0, 2, 1, window_dilation=(1, 2, 2, 1)), {"s": (2,)}, batch=IMAGES),
    "mean": row(
        lambda p, b: (
            pool(lax.add, 0.0, 3, 2)(p, b)
            / lax.reduce_window(jnp.ones_like(b["x"]), 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
        ),
        {"s": (2,)},
        batch=IMAGES,
    ),
    "global": row(
        lambda p, b: jnp.mean(b["x"] * p["s"], (1, 2)) + jnp.max(b["x"] * p["s"], (1, 2)), {"s": (2,)}, batch=IMAGES
    ),
    "by reshaping": row(
        lambda p, b: jnp.max((b["x"][:, :, :6] * p["s"]).reshape(-1, 4, 2, 3, 2, 2), (2, 4)), {"s": (2,)}, batch=IMAGES
    ),
    "resize, bilinear": row(
        lambda p, b: jax.image.resize(b["x"] * p["s"], (b["x"].shape[0], 11, 5, 2), "bilinear"),
        {"s": (2,)},
        batch=IMAGES,
    ),
    "resize, nearest": row(
        lambda p, b: jax.image.resize(b["x"] * p["s"], (b["x"].shape[0], 16, 14, 2), "nearest"),
        {"s": (2,)},
        batch=IMAGES,
    ),
}

TABLES = {"convolutions": Table(CONVOLUTIONS), "pools": Table(POOLS)}


@pytest.mark.parametrize(("table", "name"), [(key, name) for key, table in TABLES.items() for name in table.rows])
def test_it_is_what_jax_computes(table: str, name: str) -> None:
    assert not TABLES[table].disagreements(name)
