"""300 short random programs agree with JAX on native code, and the first 30 on bytecode.

The words of the generator's vocabulary take turns: each module has every one. The first 50 are evaluated too, example
by example. `tools/fuzz_models.py` runs more of them, and longer ones; docs/concepts/check.md says how.
"""

import pytest
from agreement.fuzz import finds, modules, report


@pytest.mark.parametrize("seeds", modules(0, 300), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_programs_agree(seeds: range) -> None:
    found = finds(seeds, devices=("local-task", "local-sync"), evaluates=seeds.start == 0)
    assert not found, report(found)


def test_programs_agree_on_bytecode() -> None:
    # Bytecode takes as long to compile as native code for both devices.
    found = finds(range(30), devices=("vmvx",), evaluates=False)
    assert not found, report(found)
