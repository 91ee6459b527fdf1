"""JAX functions traced to MLIR text whose arguments and results have names and roles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Var
from jaxlib.mlir import ir

from sonew_compiled import contract
from sonew_compiled.contract import STATE_ROLES, Role, role_of_root
from sonew_compiled.requirements import names_of
from sonew_compiled.rules import lowering_parameters


class Label(NamedTuple):
    """The label of an argument or a result: its `sonew.name` and its `sonew.role`."""

    name: str
    role: Role


def labels(trees: Mapping[str, Any]) -> list[Label]:
    """The labels of the leaves of trees, given by the roots of their roles."""
    paths, _ = jax.tree_util.tree_flatten_with_path(trees)
    roles = [role_of_root(path[0].key) for path, _ in paths]
    return [Label(name, role) for name, role in zip(names_of(trees), roles, strict=True)]


def trace_labelled(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    arguments: Sequence[Label],
    results: Sequence[Label],
    donate: bool = False,
    prune: bool = False,
) -> tuple[str, jax.stages.Lowered]:
    """The function of its flat list of arguments, as labelled MLIR text and as JAX lowers it.

    With `donate` the caller gives up the state; with `prune` arguments that the function does not read are left out.
    """
    tree: Any
    leaves, tree = jax.tree.flatten(tuple(args))
    assert len(leaves) == len(arguments)

    def flat(*kept_leaves: Any) -> list[Any]:
        full: list[Any] = list(leaves)
        for index, leaf in zip(kept, kept_leaves, strict=True):
            full[index] = leaf
        return jax.tree.leaves(function(*tree.unflatten(full)))

    kept = list(range(len(leaves)))
    if prune:
        jaxpr = jax.make_jaxpr(flat)(*leaves).jaxpr
        used = {var for eqn in jaxpr.eqns for var in eqn.invars if isinstance(var, Var)} | set(jaxpr.outvars)
        kept = [index for index, var in enumerate(jaxpr.invars) if var in used]
        # An argument that is not kept is never read, so any value of the right shape will do.
        leaves = [leaf if i in kept else jnp.zeros(leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
    kept_leaves = [leaves[index] for index in kept]
    arguments = [arguments[index] for index in kept]

    # The function is lowered for processors, whatever device JAX would use here. The targets adapt the module later.
    traced = jax.jit(flat, keep_unused=True).trace(*kept_leaves)
    lowered = traced.lower(lowering_platforms=("cpu",), _private_parameters=lowering_parameters())
    out = jax.tree.leaves(lowered.out_info)
    assert len(out) == len(results), f"{len(out)} results for the labels {results}"
    module = lowered.compiler_ir("stablehlo")
    _label_values(module, arguments, results, donate=donate)
    return str(module), lowered


def _label_values(module: ir.Module, arguments: Sequence[Label], results: Sequence[Label], *, donate: bool) -> None:
    with module.context:
        main = next(op for op in module.body.operations if ir.StringAttr(op.attributes["sym_name"]).value == "main")

        def attributes(key: str, labels: Sequence[Label], *, donate: bool) -> ir.ArrayAttr:
            old = main.attributes[key] if key in main.attributes else [ir.DictAttr.get({})] * len(labels)
            dictionaries = []
            for attrs, label in zip(old, labels, strict=True):
                named = {a.name: a.attr for a in attrs if not a.name.startswith("jax.")}
                named[contract.NAME_ATTRIBUTE] = ir.StringAttr.get(label.name)
                named[contract.ROLE_ATTRIBUTE] = ir.StringAttr.get(label.role)
                if donate and label.role in STATE_ROLES:
                    named[contract.DONATE_ATTRIBUTE] = ir.UnitAttr.get()
                dictionaries.append(ir.DictAttr.get(named))
            return ir.ArrayAttr.get(dictionaries)

        main.attributes["arg_attrs"] = attributes("arg_attrs", arguments, donate=donate)
        main.attributes["res_attrs"] = attributes("res_attrs", results, donate=False)


def inner_module(name: str, text: str) -> str:
    """The text of a module under another name, for a container."""
    head, _, rest = text.partition("{")
    _, at, attributes = head.partition(" attributes ")
    # `module @jit_flat attributes {...} {` or `module @jit_flat {`: only the symbol changes.
    return f"module @{name}{at}{attributes}{{{rest}"
