"""The dense layers of a loss, found in its jaxpr for the optimizers that look into the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Var
from jax.extend.core.primitives import (
    add_p,
    broadcast_in_dim_p,
    convert_element_type_p,
    dot_general_p,
    jit_p,
    reshape_p,
)

from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError

Place = tuple[int, ...]
"""The place of an equation: its index in the jaxpr, preceded by the indices of the calls that contain it."""

_AS_A_WEIGHT = (((1,), (0,)), ((), ()))


@dataclass(frozen=True, kw_only=True)
class DenseLayer:
    """A product `a W`, or `a W + b`, of activations `a` of shape (batch, in).

    Attributes:
      name: the path of the weight in the tree of parameters, joined by `/`.
      weight: the index of `W`, of shape (in, out), among the leaves of the parameters.
      bias: the index of `b`, of shape (out,); None without a bias.
      place: the place of the product in the jaxpr of the loss.
    """

    name: str
    weight: int
    bias: int | None
    place: Place

    def join(self, leaves: list[jax.Array]) -> jax.Array:
        """The layer's matrix in a tree like the parameters: (in, out), or (in + 1, out) with the bias as last row.

        Args:
          leaves: the leaves of the tree, in the order of the parameters.
        """
        weight = leaves[self.weight]
        return weight if self.bias is None else jnp.concatenate([weight, leaves[self.bias][None]], axis=0)

    def with_ones(self, inputs: jax.Array) -> jax.Array:
        """The layer's inputs, (batch, in), with a column of ones for a bias: (batch, in + 1)."""
        if self.bias is None:
            return inputs
        return jnp.concatenate([inputs, jnp.ones((inputs.shape[0], 1), inputs.dtype)], axis=1)


def split(layers: tuple[DenseLayer, ...], matrices: dict[str, jax.Array], like: Any) -> Any:
    """The tree like `like` that holds the layers' matrices by name: the inverse of `DenseLayer.join`."""
    tree: Any
    leaves, tree = jax.tree.flatten(like)
    for layer in layers:
        matrix = matrices[layer.name]
        leaves[layer.weight] = matrix if layer.bias is None else matrix[:-1]
        if layer.bias is not None:
            leaves[layer.bias] = matrix[-1]
    return tree.unflatten(leaves)


def find_layers(jaxpr: Jaxpr, params: Any, batch: Any, optimizer: str) -> tuple[DenseLayer, ...]:
    """The layers of a loss, in the order of their weights among the parameters.

    Every parameter must be used once: a matrix (in, out) as the right operand of a product with activations
    (batch, in), a vector (out,) as the bias that is added to such a product. The search goes into functions under
    `jax.jit`, but not into loops and other functions.

    Args:
      jaxpr: of `loss(params, batch)`, the leaves of the parameters first.
      params: a tree of arrays or `jax.ShapeDtypeStruct`.
      batch: likewise; the leading axis of every leaf is the batch size.
      optimizer: the optimizer's name, for the error.

    Raises:
      UsageError: a parameter is used in another way.
    """
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    search = _Search(names, jnp.shape(jax.tree.leaves(batch)[0])[0], optimizer)
    search.follow(jaxpr, {var: _Value("parameter", index) for index, var in enumerate(jaxpr.invars[: len(names)])})
    return search.layers()


@dataclass(frozen=True)
class _Value:
    """A parameter, a bias broadcast over the batch, or a product; `index` is that of its parameter."""

    kind: str
    index: int


class _Search:
    def __init__(self, names: list[str], batch_size: int, optimizer: str) -> None:
        self._names = names
        self._batch_size = batch_size
        self._optimizer = optimizer
        self._uses: Counter[_Value] = Counter()
        self._places: dict[int, Place] = {}
        self._weight_of: dict[int, int] = {}

    def follow(self, jaxpr: Jaxpr, found: dict[Var, _Value], outside: Place = ()) -> None:
        """Adds the values that come of the parameters to `found`, and records the uses of the parameters."""
        for index, eqn in enumerate(jaxpr.eqns):
            read = [(i, found[v]) for i, v in enumerate(eqn.invars) if isinstance(v, Var) and v in found]
            if not read:
                continue
            place = (*outside, index)
            if eqn.primitive is jit_p:
                inner: Jaxpr = eqn.params["jaxpr"].jaxpr
                inside = {inner.invars[i]: value for i, value in read}
                self.follow(inner, inside, place)
                pairs = zip(inner.outvars, eqn.outvars, strict=True)
                found |= {out: inside[v] for v, out in pairs if isinstance(v, Var) and v in inside}
            elif eqn.primitive is convert_element_type_p:
                found[eqn.outvars[0]] = read[0][1]
            else:
                for _, value in read:
                    self._uses[value] += 1
                result = self._use(eqn, read, place)
                if result is not None:
                    found[eqn.outvars[0]] = result

    def _use(self, eqn: JaxprEqn, read: list[tuple[int, _Value]], place: Place) -> _Value | None:
        """The value that an equation makes of those that it reads, each with its position; None for any other."""
        by_kind = {value.kind: value for _, value in read}
        ours = by_kind.get("bias", by_kind.get("parameter"))
        if ours is None:
            return None  # the use of a product is not restricted
        if by_kind.keys() == {"bias", "product"} and eqn.primitive is add_p and self._uses[ours] == 1:
            self._weight_of[ours.index] = by_kind["product"].index
            return None
        if self._uses[ours] > 1 or len([value for _, value in read if value == ours]) > 1:
            self._refuse(ours.index, "is used more than once")
        if len(read) == 1 and ours.kind == "parameter":
            if eqn.primitive is dot_general_p and read[0][0] == 1 and _is_dense(eqn, self._batch_size):
                self._places[ours.index] = place
                return _Value("product", ours.index)
            if _is_wide_bias(eqn):
                return _Value("bias", ours.index)
        what = f"goes into {eqn.primitive.name}"
        if eqn.primitive is dot_general_p:
            what += ", not as the weight of a product (batch, in) x (in, out)"
        elif ours.kind == "bias":
            what += ", not added to the product of a weight"
        return self._refuse(ours.index, what)

    def layers(self) -> tuple[DenseLayer, ...]:
        """All layers; every parameter must belong to one."""
        for index in range(len(self._names)):
            if index not in self._places and index not in self._weight_of:
                self._refuse(index, "has no part in the loss")
        biases: dict[int, int] = {}
        for bias, weight in self._weight_of.items():
            if self._uses[_Value("product", weight)] > 1:
                self._refuse(bias, "is added to a product that is read elsewhere too")
            biases[weight] = bias
        return tuple(
            DenseLayer(name=self._names[weight] or "kernel", weight=weight, bias=biases.get(weight), place=place)
            for weight, place in sorted(self._places.items())
        )

    def _refuse(self, index: int, what: str) -> NoReturn:
        name = "/".join(filter(None, (Role.PARAMETER.root, self._names[index])))
        raise UsageError(
            f"{self._optimizer} needs a model of dense layers: {name} {what}; give another optimizer, such as shampoo"
        )


def _is_dense(eqn: JaxprEqn, batch_size: int) -> bool:
    dimensions = tuple(tuple(map(tuple, pair)) for pair in eqn.params["dimension_numbers"])
    left, right = map(shape_of, eqn.invars)
    return dimensions == _AS_A_WEIGHT and len(left) == len(right) == 2 and left[0] == batch_size


def _is_wide_bias(eqn: JaxprEqn) -> bool:
    """Whether the equation repeats a vector along the rows of a matrix, which may have a single row."""
    before, after = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    if len(before) != 1 or len(after) != 2 or after[1] != before[0]:
        return False
    if eqn.primitive is broadcast_in_dim_p:
        return tuple(eqn.params["broadcast_dimensions"]) == (1,)
    return eqn.primitive is reshape_p and after[0] == 1


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or a literal of a jaxpr."""
    shape: tuple[int, ...] = atom.aval.shape
    return shape


def loss_jaxpr(loss: Callable[[Any, Any], jax.Array], params: Any, batch: Any) -> Any:
    """The closed jaxpr of a loss for trees of arrays, or of anything that has a shape and a dtype."""

    def described(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), tree)

    return jax.make_jaxpr(loss)(described(params), described(batch))
