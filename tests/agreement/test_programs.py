"""150 short random programs agree with JAX on native code, the first 50 of them on bytecode as well.

`tools/fuzz_models.py` runs more of them, and longer ones with control flow; docs/concepts/check.md says how.
"""

import pytest
from agreement.compare import DEVICES
from agreement.fuzz import finds, modules, report

NATIVE = ("local-task", "local-sync")


@pytest.mark.parametrize("seeds", modules(0, 150), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_programs_agree(seeds: range) -> None:
    # Bytecode takes as long to compile as native code for both devices.
    found = finds(seeds, devices=NATIVE if seeds.start else tuple(DEVICES))
    assert not found, report(found)
