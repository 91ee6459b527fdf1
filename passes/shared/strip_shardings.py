"""Remove annotations for several devices, and calls that only annotate.

JAX annotates random keys, and any tensor on request, with a sharding (the dialect sdy), a memory or a layout. A bundle
is for one device, where these have no effect.
"""

from __future__ import annotations

from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.ir.uses import operations_in
from sonew_compiled.passes.record import Pass

# Operations that return their operand.
_ANNOTATIONS = ("sdy.sharding_constraint", "sdy.reshard", "sdy.propagation_barrier")
# Operations without results.
_DECLARATIONS = ("sdy.mesh", "sdy.sharding_group")
# Calls of XLA that return their operand.
_ANNOTATING_CALLS = ("Sharding", "annotate_device_placement", "LayoutConstraint")
_ATTRIBUTES = ("mhlo.frontend_attributes", "mhlo.layout_mode", "mhlo.memory_kind", "mhlo.sharding")


def strip_shardings(module: ir.Module) -> None:
    """Remove all operations and attributes that have no effect on the numbers.

    Raises:
        UsageError: the module computes on several devices.
    """
    for op in operations_in(module.operation):
        if op.name in _DECLARATIONS:
            op.erase()
        elif op.name in _ANNOTATIONS or (op.name == "stablehlo.custom_call" and _callee(op) in _ANNOTATING_CALLS):
            op.results[0].replace_all_uses_with(op.operands[0])
            op.erase()
        elif op.name.startswith("sdy."):
            raise UsageError(
                f"the model or the optimizer computes on several devices ({op.name}); a bundle is for one: "
                "leave out jax.shard_map and collectives"
            )
        else:
            _strip_attributes(op)


def _callee(op: ir.Operation) -> str:
    return str(ir.StringAttr(op.attributes["call_target_name"]).value)


def _strip_attributes(op: ir.Operation) -> None:
    for name in [name for name in op.attributes if _is_annotation(name)]:
        del op.attributes[name]
    for key in ("arg_attrs", "res_attrs"):
        if key not in op.attributes:
            continue
        kept = []
        for each in op.attributes[key]:
            named = {one.name: one.attr for one in ir.DictAttr(each) if not _is_annotation(one.name)}
            kept.append(ir.DictAttr.get(named))
        op.attributes[key] = ir.ArrayAttr.get(kept)


def _is_annotation(name: str) -> bool:
    return name.startswith("sdy.") or name in _ATTRIBUTES


PASS = Pass(
    name="strip-shardings",
    summary="remove annotations for several devices, and calls that only annotate",
    description=__doc__,
    run=strip_shardings,
)
