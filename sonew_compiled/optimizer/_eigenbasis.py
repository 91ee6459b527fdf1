"""The axes of a tensor's matrix, and orthonormal bases of each that turn towards the eigenvectors of statistics."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from sonew_compiled.optimizer._orthonormal import power_step

# A side that is longer than this keeps its axes.
_LONGEST_SIDE = 4096

# The entries of the bases that are rotated together. IREE 3.13 does not reuse memory that the loops of a step have
# freed if they use much at a time.
_TOGETHER = 1 << 20


def rotated_sides(x: jax.Array) -> dict[int, int]:
    """The length of each axis, 0 or 1, along which the matrix is rotated."""
    if x.ndim < 2 or x.size == 0:
        return {}
    return {axis: n for axis, n in enumerate((x.size // x.shape[-1], x.shape[-1])) if n <= _LONGEST_SIDE}


def turned_bases(statistics: Any, bases: Any) -> Any:
    """All bases after a step of orthogonal iteration; bases of one size are computed together."""
    tree: Any
    matrices, tree = jax.tree.flatten(statistics)
    turned: list[Any] = jax.tree.leaves(bases)
    ridge = jnp.asarray(8 * float(jnp.finfo(matrices[0].dtype).eps), jnp.float32) if matrices else jnp.zeros(())
    for alike in _alike([len(matrix) for matrix in matrices]):
        stack, old = (jnp.stack([arrays[index] for index in alike]) for arrays in (matrices, turned))
        new = jax.vmap(power_step, (0, 0, None))(stack, old, ridge)
        # No entry of a basis is that large, so this is never true. It orders the work: the next bases have to wait for
        # the comparison.
        ridge = ridge + jnp.where(new[0, 0, 0] > 2, 1, 0)
        for position, index in enumerate(alike):
            turned[index] = new[position]
    return tree.unflatten(turned)


def _alike(sizes: list[int]) -> list[list[int]]:
    """The indices of the matrices that are rotated together: of one size, and not too many."""
    groups = []
    for size in sorted(set(sizes)):
        alike = [index for index, each in enumerate(sizes) if each == size]
        most = max(_TOGETHER // size**2, 1)
        groups += [alike[begin : begin + most] for begin in range(0, len(alike), most)]
    return groups


def gram(x: jax.Array, axis: int) -> jax.Array:
    """`X X^T` for axis 0, `X^T X` for axis 1."""
    matrix = x.reshape(-1, x.shape[-1])
    return matrix @ matrix.T if axis == 0 else matrix.T @ matrix


def rotated(x: jax.Array, bases: tuple[jax.Array, ...], *, back: bool = False) -> jax.Array:
    """`Q_L^T X Q_R`, or `Q_L X Q_R^T`."""
    if not bases:
        return x
    matrix = x.reshape(-1, x.shape[-1])
    for axis, q in zip(rotated_sides(x), bases, strict=True):
        q = q.T if back else q
        matrix = q.T @ matrix if axis == 0 else matrix @ q
    return matrix.reshape(x.shape)
