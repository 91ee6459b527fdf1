"""The tables of docs/reference/targets.md agree with the committed rows, which are those of the tests' compiler."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import generated
import pytest

from sonew_compiled.lowering.targets import target_names

ROOT = Path(__file__).parents[2]
DOCUMENT, ROWS = ROOT / "docs/reference/targets.md", ROOT / "docs" / "results" / "targets.jsonl"

# The machine that made the table ran these; all of them ran the small model.
RUN = {"cpu", "vmvx", "vulkan"}
COMPILED = {*RUN, "cpu:aarch64", "cpu:riscv64", "cuda:sm_80", "rocm:gfx942", "metal", "tpu:v5e"}


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("target_table")


def test_the_document_has_the_table_of_the_rows(tool: ModuleType) -> None:
    table = tool.markdown(tool.read_rows(ROWS))
    assert table in generated.filled(DOCUMENT.read_text(encoding="utf-8"))
    assert "| `cpu` | 6 compiled, 6 run | 6 compiled, 6 run |" in table


def test_the_rows_are_of_the_tested_compiler(tool: ModuleType) -> None:
    tested = re.search(r"^iree-base-compiler==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert tested is not None
    assert {row["compiler"] for row in tool.read_rows(ROWS)} == {tested[1]}


def test_every_combination_compiles_or_is_refused_with_a_reason(tool: ModuleType) -> None:
    rows = tool.read_rows(ROWS)
    keys = [tuple(row[key] for key in tool.KEYS) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {key.partition(":")[0] for key in COMPILED} == {name.partition(":")[0] for name in target_names()}
    assert set(keys) >= {(*each, target) for each, target in itertools.product(tool.combinations(), COMPILED)}
    for row in rows:
        assert row["result"] == "compiled" or (row["result"] == "refused" and "the nearest that can is" in row["why"])
        if row["model"] != "autoencoder" and row["target"] in RUN and row["result"] == "compiled":
            assert row["ran"], row
