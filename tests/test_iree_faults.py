"""Faults of the installed IREE that passes and rules work around, each by a reduced module in `tests/iree/`.

A test that fails here says that IREE has been mended: what works around the fault can go (docs/iree-issues.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from iree import runtime as rt

from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import resolve_target

MODULES = Path(__file__).parent / "iree"

NOT_COMPILED = {
    "overlapping_pool": "failed to legalize operation 'stablehlo.select_and_scatter'",
    "product_of_a_slice": "exceeded stack allocation limit of 65536 bytes",
}


def _compile(name: str) -> bytes:
    return lower_iree((MODULES / f"{name}.mlir").read_bytes(), resolve_target("cpu:x86-64-v3"), what=name)


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_iree_does_not_compile(name: str) -> None:
    with pytest.raises(SonewError) as caught:
        _compile(name)
    assert NOT_COMPILED[name] in str(caught.value)


def test_iree_loses_a_buffer_that_a_loop_carries_twice() -> None:
    executable = _compile("loop_carries_a_buffer_twice")
    config = rt.Config("local-sync")
    context = rt.SystemContext(config=config)
    module = rt.VmModule.copy_buffer(config.vm_instance, executable)
    context.add_vm_module(module)
    with pytest.raises(IndexError, match="indirect buffer reference slot 0 is out range"):
        context.modules[module.name]["f"](np.int32(3))
