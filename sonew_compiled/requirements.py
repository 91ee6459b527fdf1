"""The requirements on models and optimizers; each refusal is a line that names the tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from sonew_compiled.backward import Loss
from sonew_compiled.contract import Role
from sonew_compiled.errors import UsageError
from sonew_compiled.recurrence import Recurrence, dependents

# The dtypes that buffers hold. Float8 and complex numbers have no path through all targets.
_DTYPES = frozenset(
    {
        *("float32", "float16", "bfloat16", "bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "float64"),  # those of 64 bits are the targets' to refuse
    }
)

Tree = Any


def names_of(tree: Tree) -> list[str]:
    """The names of a tree's tensors: their paths, joined by `/`.

    Raises:
      UsageError: two tensors would have the same name, or a part of a name is empty or cannot be printed.
    """
    paths: dict[str, Any] = {}
    flat: Any = jax.tree_util.tree_flatten_with_path(tree)[0]
    for path, _ in flat:
        parts = [jax.tree_util.keystr((part,), simple=True) for part in path]
        name = "/".join(parts)
        shown = ascii(name)
        if not all(parts):
            raise UsageError(f"the tensor {shown} has a part of its name that is empty; give every part a name")
        if not name.isprintable():
            raise UsageError(f"the name of the tensor {shown} has characters that cannot be printed; give another name")
        if name in paths:
            first, second = (_place(each) for each in (paths[name], path))
            raise UsageError(f"{first} and {second} are both called {shown}; rename one of them")
        paths[name] = path
    return list(paths)


def _place(path: Any) -> str:
    """The tree and the place in it, as `params['a']['b']`."""
    return jax.tree_util.keystr(path[:1], simple=True) + jax.tree_util.keystr(path[1:])


def checked_parameters(params: Tree) -> Tree:
    """The parameters from a model's `init` as JAX arrays; numbers and NumPy's arrays are converted.

    Raises:
      UsageError: a leaf is of another type, or there is no leaf.
    """
    if not jax.tree.leaves(params):
        raise UsageError("init gives no parameters; a model needs at least one floating-point array to train")
    return _arrays(params, Role.PARAMETER, "a parameter must be an array")


def checked_model_state(state: Tree) -> Tree:
    """The state that a model's `init` or `loss` gave, every leaf a JAX array: numbers and NumPy's arrays become such.

    Raises:
      UsageError: a leaf is neither an array nor a number.
    """
    return _arrays(state, Role.MODEL_STATE, "what a model keeps from step to step must be an array")


def _arrays(tree: Tree, role: Role, needed: str) -> Tree:
    def checked(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return leaf
        name = "/".join([role.root, *(jax.tree_util.keystr((part,), simple=True) for part in path)])
        if isinstance(leaf, np.ndarray | np.generic | float | int) and np.asarray(leaf).dtype.kind in "fiub":
            return jnp.asarray(leaf)
        what = getattr(leaf, "__name__", None) if callable(leaf) else None
        raise UsageError(
            f"{name!a} is {'the function ' + what if what else 'of type ' + type(leaf).__name__}, and {needed}; "
            "keep it out of what init gives, as a part of the model's code"
        )

    return jax.tree_util.tree_map_with_path(checked, tree)


def check_batch(batch: Tree) -> None:
    """Checks that the fields of a batch share their leading axis, and have dtypes that buffers hold.

    Raises:
      UsageError: a field differs in its leading axis, or has another dtype.
    """
    leaves = jax.tree.leaves(batch)
    sizes = {leaf.shape[0] if leaf.shape else None for leaf in leaves}
    names = names_of({Role.BATCH.root: batch})
    if not leaves or len(sizes) != 1 or None in sizes:
        shapes = {name: leaf.shape for name, leaf in zip(names, leaves, strict=True)}
        raise UsageError(f"the batch has shapes {shapes}; every field needs the batch size as its leading axis")
    for name, leaf in zip(names, leaves, strict=True):
        _check_dtype(name, leaf, "a field of a batch")


def check_parameters(params: Tree) -> None:
    """Checks that parameters are of dtypes that buffers hold.

    Raises:
      UsageError: a parameter is of another dtype.
    """
    for name, leaf in zip(names_of({Role.PARAMETER.root: params}), jax.tree.leaves(params), strict=True):
        _check_dtype(name, leaf, "a parameter")


def check_loss(loss: Loss, params: Tree, batch: Tree) -> None:
    """Checks that the loss is a floating-point scalar that depends on some parameter.

    Raises:
      UsageError: it is not, or does not.
    """
    returned: list[Any] = []

    def kept(params: Tree, batch: Tree) -> Any:
        returned.append(loss(params, batch))
        return returned[-1]

    value = jax.eval_shape(kept, params, batch)
    remedy = "it must be a scalar, the mean over the batch's examples"
    if not isinstance(value, jax.ShapeDtypeStruct) or value.shape != ():
        raise UsageError(f"the loss returned {value}; {remedy}")
    if not isinstance(returned[-1], jax.Array):
        raise UsageError(f"the loss returned {returned[-1]!r}, which is not a JAX array; {remedy}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise UsageError(
            f"the loss is of dtype {value.dtype}, which has no gradient; it must be a floating-point scalar"
        )
    if not any(dependents(jax.make_jaxpr(loss)(params, batch), range(len(jax.tree.leaves(params))))):
        raise UsageError("the loss depends on no parameter, so that nothing would be trained; compute it from them")


def check_gradients(gradients: ClosedJaxpr, cotangent: int, results: Iterable[int]) -> None:
    """Checks that not all gradients are zero for every choice of parameters and batch.

    Gradients are linear in the cotangent of the loss. Those that do not depend on it are zero.

    Args:
      gradients: the jaxpr of the backward pass.
      cotangent: the index of the loss's cotangent among its arguments.
      results: the indices of the gradients among its results.

    Raises:
      UsageError: all are zero.
    """
    depends = dependents(gradients, [cotangent])
    if not any(depends[index] for index in results):
        raise UsageError(
            "the loss has a gradient of zero everywhere, so that nothing would be trained: all that it computes of the "
            "parameters goes through stop_gradient, rounding, comparisons or integers; let one reach it another way"
        )


def check_state(state: Tree) -> None:
    """Checks the dtypes of the training state.

    Raises:
      UsageError: a buffer cannot hold one.
    """
    for name, leaf in zip(names_of(state), jax.tree.leaves(state), strict=True):
        _check_dtype(name, leaf, "a tensor of the optimizer's state" if Role.OPTIMIZER.holds(name) else "the state")


def check_update(before: Tree, after: Tree, *, maker: str = "the optimizer's init give what its update gives") -> None:
    """Checks that a step gives a state of the same tensors as `init`.

    Args:
      before: what `init` gives.
      after: what a step gives.
      maker: the advice in the error, as words that follow "let".

    Raises:
      UsageError: a tensor comes, goes, or has another shape, dtype or place; the message names the first one.
    """
    remedy = f"a compiled step needs the same state at every step: let {maker}"
    had = dict(zip(names_of(before), jax.tree.leaves(before), strict=True))
    has = dict(zip(names_of(after), jax.tree.leaves(after), strict=True))
    for name in had.keys() | has.keys():
        if name not in has or name not in had:
            where = "init, and not after a step" if name in had else "a step, and not after init"
            raise UsageError(f"{name} is in the state after {where}; {remedy}")
    for name, leaf in had.items():
        new = has[name]
        if (leaf.shape, leaf.dtype) != (new.shape, new.dtype):
            raise UsageError(
                f"{name} is {leaf.dtype}{list(leaf.shape)} after init and {new.dtype}{list(new.shape)} after a step; "
                f"{remedy}"
            )
    # A dict is flattened in the order of its keys, an OrderedDict in its own: results would change places.
    for name, other in zip(had, has, strict=True):
        if name != other:
            raise UsageError(
                f"{other} is in the place of {name} in the state after a step; {remedy}, in the same kind of container"
            )


def check_decays(state: Tree, steps: Sequence[Recurrence], *, first: int, stored: str, how: str = "stores") -> None:
    """Checks that no decaying average of the optimizer's or the model's state is kept in too few bits to fall.

    A number of `p` bits a little above a power of two, multiplied by more than `1 - 2^-p` and rounded to nearest, is
    the same number again. An average stops falling there.

    Args:
      state: the state, whose float32 tensors that are no parameters will be rounded to `stored` in every step.
      steps: the recurrence of each tensor in a step.
      first: the number of the state's first tensor among the arguments.
      stored: a dtype's name.
      how: whether the policy "stores" or "computes" them in that dtype, for the error.

    Raises:
      UsageError: an average would rise and never fall.
    """
    bound = slowest_decay(stored)
    for index, (name, leaf) in enumerate(zip(names_of(state), jax.tree.leaves(state), strict=True)):
        if Role.PARAMETER.holds(name) or leaf.dtype != jnp.float32:
            continue
        for factor in steps[index].factors.get(first + index, ()):
            if bound <= factor < 1:
                raise UsageError(
                    f"{name} decays by {factor:.6g} a step; this precision {how} it in {stored}, where it would stop "
                    f"falling, because decays of {bound:.6g} and more are rounded away; give a smaller one, such as "
                    "0.99, or --precision bf16-mixed or f32"
                )


def slowest_decay(stored: str) -> float:
    """The least decay at which an average that is stored in this dtype stops falling; above 1 for float32."""
    return 2.0 if jnp.finfo(stored).bits >= 32 else 1 - float(jnp.finfo(stored).eps) / 2


def _check_dtype(name: str, leaf: Any, what: str) -> None:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or str(leaf.dtype) in _DTYPES:
        return
    raise UsageError(
        f"{name} is of dtype {leaf.dtype}, which {what} cannot have here; give it as float32, or as bfloat16, float16, "
        "an integer or boolean dtype"
    )
