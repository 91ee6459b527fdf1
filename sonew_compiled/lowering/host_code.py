"""The code that IREE's compiler makes for the host, in its `vm` dialect, with two faults mended."""

from __future__ import annotations

import io

from sonew_compiled.lowering.barriers import add_barriers
from sonew_compiled.lowering.branches import part_references


def mend_host_code(host_code: bytes) -> bytes:
    """The same code, bytecode or text of IREE's MLIR, after `add_barriers` and `part_references`, as bytecode."""
    import iree.compiler.ir as ir

    with ir.Context():
        module = ir.Module.parse(host_code)
        add_barriers(module.operation)
        part_references(module.operation)
        mended = io.BytesIO()
        module.operation.write_bytecode(mended)
    return mended.getvalue()
