"""Faults of the installed IREE's code for GPUs that passes and flags go around, each by a module in `iree/`.

If a test fails here, IREE has mended the fault, and the workaround can go (docs/internals/iree-issues.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from plugins.compiler import call

from sonew_compiled import passes
from sonew_compiled.errors import SonewError
from sonew_compiled.lowering.iree import lower_iree
from sonew_compiled.lowering.targets import resolve_target
from sonew_compiled.runtime import list_devices

MODULES = Path(__file__).parent / "iree"


def compiled(name: str, target_name: str, mended: Sequence[str] = (), *, falls_back: bool = True) -> bytes:
    module = passes.parse((MODULES / f"{name}.mlir").read_text())
    passes.run_pipeline(module, [passes.parse_pass(each) for each in mended])
    target = resolve_target(target_name)
    target = target if falls_back else dataclasses.replace(target, fallback_flags=())
    return lower_iree(passes.to_bytes(module), target, what=name)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("vulkan:adreno", "Failed to get an identity value for the reduction operation"),
        ("cuda:sm_80", "failed to get neutral element for reduction"),
    ],
)
def test_the_sum_of_a_negated_tensor_is_not_compiled(target: str, said: str) -> None:
    with pytest.raises(SonewError, match=said):
        compiled("negated_sum", target, falls_back=False)
    assert compiled("negated_sum", target, ["negate-sums"], falls_back=False)


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [("scaled_sum", "cuda:sm_80", "failed to distribute"), ("small_matrices", "rocm:gfx942", r"crashed \(SIGSEGV\)")],
)
def test_what_is_compiled_with_the_flags_of_the_second_try(name: str, target: str, said: str) -> None:
    with pytest.raises(SonewError, match=said):
        compiled(name, target, falls_back=False)
    assert compiled(name, target)


def test_a_sum_is_read_before_another_thread_has_made_it() -> None:
    if not any(found.name == "vulkan" for found in list_devices()):
        pytest.skip("there is no Vulkan device here")

    def is_wrong(code: bytes, seed: int) -> bool:
        rng = np.random.default_rng(seed)
        x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 8, 8), (8, 4, 8)))
        ((got,),) = call(code, "main", [x, y], "vulkan")
        return not np.allclose(got, (x.sum(2)[..., None] * x).transpose(2, 0, 1) + y, rtol=1e-4, atol=1e-4)

    faulty, mended = compiled("transposed_sum", "vulkan"), compiled("transposed_sum", "vulkan", ["fence-sums"])
    # What an earlier call has left in the memory of a workgroup can be right, by chance.
    assert any(is_wrong(faulty, seed) for seed in range(3))
    assert not any(is_wrong(mended, seed) for seed in range(3))
