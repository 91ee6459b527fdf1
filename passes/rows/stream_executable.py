"""A `stream.executable` of kernels, which `iree-compile` treats like those that it makes itself.

One holds all the kernels of a module, because IREE 3.13 sets up its pipelines anew for each.
"""

from __future__ import annotations

from sonew_compiled.passes.ir.build import create
from sonew_compiled.passes.ir.mlir import ir
from sonew_compiled.passes.rows.loops import index


class StreamExecutable:
    """A `stream.executable`, made at the insertion point without kernels.

    Attributes:
      symbol: its name in the module.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._operation = create(
            "stream.executable",
            attributes={"sym_name": ir.StringAttr.get(symbol), "sym_visibility": ir.StringAttr.get("private")},
            regions=1,
        )
        with ir.InsertionPoint(self._operation.regions[0].blocks.append()):
            self._module = create("builtin.module", regions=1)
            create("stream.executable.end")
        self._functions = self._module.regions[0].blocks.append()

    def add(self, symbol: str, *, bindings: int, groups: int) -> ir.Operation:
        """Add a `func.func` of `bindings` arguments with an empty block, and its export with `groups` workgroups."""
        name = ir.StringAttr.get(symbol)
        reference = ir.FlatSymbolRefAttr.get(symbol)
        with ir.InsertionPoint(self._module):
            export = create(
                "stream.executable.export", attributes={"sym_name": name, "function_ref": reference}, regions=1
            )
        with ir.InsertionPoint(export.regions[0].blocks.append()):
            create("stream.return", [index(groups), index(1), index(1)])
        arguments = [ir.Type.parse("!stream.binding")] * bindings
        with ir.InsertionPoint(self._functions):
            function = create(
                "func.func",
                attributes={
                    "sym_name": name,
                    "function_type": ir.TypeAttr.get(ir.FunctionType.get(arguments, [])),
                },
                regions=1,
            )
        function.regions[0].blocks.append(*arguments)
        return function

    def erase(self) -> None:
        """Remove it from the module."""
        self._operation.erase()

    def entry(self, symbol: str) -> ir.Attribute:
        """The symbol by which a dispatch calls the kernel of this name."""
        return ir.SymbolRefAttr.get([self.symbol, symbol])
