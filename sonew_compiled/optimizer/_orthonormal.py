"""Orthonormal bases by matrix products and loops, without LAPACK."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._precision import in_float32

_WIDTH = 32


def power_step(matrix: jax.Array, basis: jax.Array, ridge: jax.Array | float) -> jax.Array:
    """One step of orthogonal iteration towards the eigenvectors of a positive semidefinite matrix.

    It is `Q` of the QR decomposition of `(A / ||A||_F + ridge I) basis`.

    Args:
      matrix: `A`, of shape (n, n).
      basis: orthonormal columns, of shape (n, n).
      ridge: keeps the product's columns independent.

    Returns:
      Orthonormal columns, in the dtype of `basis`.

    References:
      Golub and Van Loan, Matrix Computations, 4th edition, section 8.2.4 (orthogonal iteration); Vyas et al. 2024,
      arXiv 2409.11321, algorithm 4.
    """
    wide = jnp.promote_types(matrix.dtype, jnp.float32)
    stepped: jax.Array = _power_step(matrix.astype(wide), basis.astype(wide), ridge)
    return stepped.astype(basis.dtype)


@in_float32
def _power_step(a: jax.Array, basis: jax.Array, ridge: jax.Array | float) -> jax.Array:
    norm = jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(a))), jnp.finfo(a.dtype).tiny)
    # The division follows the product, because IREE 3.13 fails on a product whose operand reads a sum of few elements.
    return orthonormal(a @ basis / norm + jnp.asarray(ridge, a.dtype) * basis)


def orthonormal(columns: jax.Array) -> jax.Array:
    """`Q` of the QR decomposition of a matrix with positive diagonal in `R`, by block Gram-Schmidt done twice.

    Args:
      columns: of shape (m, n), m >= n, float32 or wider. A column that depends linearly on those before it, to the last
        bit, becomes zeros or amplified rounding errors.

    References:
      Golub and Van Loan, section 5.2.8; Barlow and Smoktunowicz, Reorthogonalized block classical Gram-Schmidt, Numer.
      Math. 2013, algorithm 2.
    """
    rows, count = columns.shape
    width = min(_WIDTH, count)
    padded = jnp.pad(columns, ((0, 0), (0, -count % width)))

    def body(k: jax.Array, q: jax.Array) -> jax.Array:
        block = jax.lax.dynamic_slice(padded, (0, k * width), (rows, width))
        for _ in range(2):
            block = _gram_schmidt(block - q @ (q.T @ block))
        return jax.lax.dynamic_update_slice(q, block, (0, k * width))

    q: jax.Array = jax.lax.fori_loop(0, padded.shape[1] // width, body, jnp.zeros_like(padded))
    return q[:, :count]


def _gram_schmidt(block: jax.Array) -> jax.Array:
    """The columns of the block after they are made orthonormal one by one."""

    def body(j: jax.Array, q: jax.Array) -> jax.Array:
        v = jax.lax.dynamic_slice(block, (0, j), (block.shape[0], 1))
        for _ in range(2):
            v = _unit(v - q @ (q.T @ v))
        return jax.lax.dynamic_update_slice(q, v, (0, j))

    q: jax.Array = jax.lax.fori_loop(0, block.shape[1], body, jnp.zeros_like(block))
    return q


def _unit(v: jax.Array) -> jax.Array:
    v = v / jnp.maximum(jnp.max(jnp.abs(v)), jnp.finfo(v.dtype).tiny)
    return v / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(v))), jnp.finfo(v.dtype).tiny)
