"""A backward pass that also gives each dense layer's inputs and the derivatives by its pre-activations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.extend.core.primitives import dot_general_p, jit_p

from sonew_compiled.optimizer._dense import DenseLayer, Place, find_layers, loss_jaxpr

Loss = Callable[[Any, Any], jax.Array]


class LayerSignals(NamedTuple):
    """The signals that `tapped_backward` gives besides the loss.

    Attributes:
      gradients: of the loss, a tree like the parameters.
      inputs: the inputs `a` of each layer by its name, of shape (batch, in).
      derivatives: the derivatives of the loss by each layer's pre-activations, by its name, of shape (batch, out).
        Since the loss is a mean, the derivatives of an example's own loss are `batch` times as large.
    """

    gradients: Any
    inputs: dict[str, jax.Array]
    derivatives: dict[str, jax.Array]


# The cache gives each loss one function. Two backward passes in a step are then two calls of one function of the traced
# module, and every compiler pass treats both alike.
@functools.lru_cache(maxsize=32)
def tapped_backward(loss: Loss, optimizer: str) -> Callable[[Any, Any, Any], tuple[jax.Array, LayerSignals]]:
    """`backward(params, batch, cotangent) -> (loss, LayerSignals)`, with one forward and one backward pass.

    Args:
      loss: `loss(params, batch) -> scalar`, the mean over the batch's examples, of dense layers; hashable.
      optimizer: the optimizer's name, for the error.

    Raises:
      UsageError: the loss is not of dense layers; tracing `backward` raises it.
    """

    def layers_backward(params: Any, batch: Any, cotangent: Any) -> tuple[jax.Array, LayerSignals]:
        closed = loss_jaxpr(loss, params, batch)
        layers = find_layers(closed.jaxpr, params, batch, optimizer)
        leaves: list[jax.Array] = jax.tree.leaves(batch)

        def forward(params: Any, probes: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
            taps = _Taps(layers, probes)
            (value,) = taps.evaluate(closed.jaxpr, closed.consts, [*jax.tree.leaves(params), *leaves])
            return value, taps.inputs

        probes = {layer.name: _output(closed.jaxpr, layer.place) for layer in layers}
        value, pullback, inputs = jax.vjp(forward, params, probes, has_aux=True)
        gradients, derivatives = pullback(jnp.asarray(cotangent, value.dtype))
        return value, LayerSignals(gradients, inputs, derivatives)

    return jax.jit(layers_backward)


def layers_of(loss: Loss, params: Any, batch: Any, optimizer: str) -> tuple[DenseLayer, ...]:
    """The layers that `tapped_backward` names, for trees of arrays or of `jax.ShapeDtypeStruct`.

    Raises:
      UsageError: the loss is not of dense layers.
    """
    return find_layers(loss_jaxpr(loss, params, batch).jaxpr, params, batch, optimizer)


class _Taps:
    """Evaluates a loss with a probe in each of its dense layers."""

    def __init__(self, layers: Sequence[DenseLayer], probes: dict[str, jax.Array]) -> None:
        self._names = {layer.place: layer.name for layer in layers}
        self._calls = {layer.place[:end] for layer in layers for end in range(1, len(layer.place))}
        self._probes = probes
        self.inputs: dict[str, jax.Array] = {}

    def evaluate(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], outside: Place = ()) -> list[Any]:
        values: dict[Var, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for index, eqn in enumerate(jaxpr.eqns):
            place = (*outside, index)
            operands = [read(atom) for atom in eqn.invars]
            if place in self._names:
                name = self._names[place]
                a, w = operands
                self.inputs[name] = a
                results = [_probed(eqn)(a, w, self._probes[name])]
            elif place in self._calls:
                assert eqn.primitive is jit_p
                inner = eqn.params["jaxpr"]
                results = self.evaluate(inner.jaxpr, inner.consts, operands, place)
            else:
                results = _bind(eqn, operands, jaxpr.debug_info)
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def _probed(eqn: JaxprEqn) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """An equation's product with an unread third argument, whose cotangent is that of the product."""

    def product(a: jax.Array, w: jax.Array) -> jax.Array:
        out: jax.Array = dot_general_p.bind(a, w, **eqn.params)
        return out

    @jax.custom_vjp
    def probed(a: jax.Array, w: jax.Array, probe: jax.Array) -> jax.Array:
        del probe
        return product(a, w)

    def forward(a: jax.Array, w: jax.Array, probe: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return probed(a, w, probe), (a, w)

    def backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        a, w = kept
        (to_a,) = jax.linear_transpose(lambda x: product(x, w), a)(g)
        (to_w,) = jax.linear_transpose(lambda x: product(a, x), w)(g)
        return to_a, to_w, g

    probed.defvjp(forward, backward)
    probed_product: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = probed
    return probed_product


def _bind(eqn: JaxprEqn, operands: list[Any], origin: Any) -> list[Any]:
    """The results of one equation. JAX evaluates a jaxpr of it alone, since binding a primitive is internal to JAX."""
    variables = [(atom, value) for atom, value in zip(eqn.invars, operands, strict=True) if isinstance(atom, Var)]
    distinct = dict(variables)
    nameless = origin._replace(arg_names=None, result_paths=None)
    alone = Jaxpr((), list(distinct), list(eqn.outvars), [eqn], eqn.effects, nameless)
    results: list[Any] = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*distinct.values())
    return results


def _output(jaxpr: Jaxpr, place: Place) -> jax.Array:
    """Zeros like the result of the equation at `place`."""
    for index in place[:-1]:
        jaxpr = jaxpr.eqns[index].params["jaxpr"].jaxpr
    result: Any = jaxpr.eqns[place[-1]].outvars[0].aval
    return jnp.zeros(result.shape, result.dtype)
