"""Merge the traced functions into one flat module.

The tracer gives a container with one inner module per function: a public `@main` and private helpers, whose names
repeat between inner modules. Each `@main` takes the name of its inner module, and each helper gets that name as a
prefix (`@init__clip`).
"""

from __future__ import annotations

from sonew_compiled.contract import merged_name
from sonew_compiled.errors import UsageError
from sonew_compiled.passes.ir.attributes import text_attribute
from sonew_compiled.passes.ir.function import Function, symbol
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.record import Pass

MODULE_NAME = "sonew"

# JAX's counts of the devices that a module is for. There is one device, so they are removed.
_DEVICE_COUNTS = ("mhlo.num_partitions", "mhlo.num_replicas")


def merge_exports(module: ir.Module) -> None:
    """Turn the container into `module @sonew` with one public function per inner module.

    Raises:
        UsageError: the module is no such container, or an inner module is for several devices.
    """
    inner = [op.operation for op in module.body.operations]
    names = [text_attribute(op.attributes, "sym_name") for op in inner if op.name == "builtin.module"]
    if not names or len(names) != len(inner) or "" in names:
        raise UsageError("merge-exports needs a module that holds named modules and nothing else")
    taken = set(names)
    for op, name in zip(inner, names, strict=True):
        _check_device_count(op, name)
        functions = list(op.regions[0].blocks[0].operations)
        _rename(op, functions, name, taken)
        for function in functions:
            module.body.append(function)
        op.erase()
    module.operation.attributes["sym_name"] = ir.StringAttr.get(MODULE_NAME)


def _rename(inner: ir.Operation, functions: list[ir.OpView], name: str, taken: set[str]) -> None:
    """Give the functions of an inner module their final names, and add these to `taken`."""
    strangers = [f.operation.name for f in functions if f.operation.name != "func.func"]
    if strangers:
        raise UsageError(f"merge-exports: module @{name} holds {strangers[0]}, but only func.func can be merged")
    public = [f for f in functions if Function(f).is_public]
    if len(public) != 1:
        raise UsageError(f"merge-exports: module @{name} has {len(public)} public functions, but must have one")
    # Helpers are renamed first, because one of them may have the name that the public function gets. No new name may be
    # the old name of a function that is still to be renamed: renaming that one would change the new name's uses too.
    here = {symbol(f) for f in functions}
    for function in sorted(functions, key=lambda f: f is public[0]):
        old = symbol(function)
        new = name if function is public[0] else _unique(merged_name(name, old), taken | here)
        taken.add(new)
        ir.SymbolTable.set_symbol_name(function, new)
        ir.SymbolTable.replace_all_symbol_uses(old, new, inner)


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        candidate, count = f"{name}_{count}", count + 1
    return candidate


def _check_device_count(op: ir.Operation, name: str) -> None:
    for attribute in _DEVICE_COUNTS:
        if attribute in op.attributes and ir.IntegerAttr(op.attributes[attribute]).value != 1:
            raise UsageError(f"merge-exports: module @{name} has {attribute} {op.attributes[attribute]}, not 1")


PASS = Pass(
    name="merge-exports",
    summary="merge the traced functions into one flat module",
    description=__doc__,
    run=merge_exports,
)
