"""The model of the time of a step with many workers."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import generated
import pytest

DOCUMENT = Path(__file__).parent.parent / "docs/internals/scaling.md"


@pytest.fixture(scope="module")
def model(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("scaling_model")


def test_the_document_has_the_table_of_the_model(model: ModuleType) -> None:
    assert model.table(model.measured()) in generated.filled(DOCUMENT.read_text(encoding="utf-8"))


def test_the_exchange_of_a_bucket(model: ModuleType) -> None:
    costs = model.Costs(call=1.0, example=1e-3, update=2.0, bucket=10**9, adding=1e-9)
    assert costs.exchange(1, 10, ring=True) == costs.exchange(1, 10, ring=False) == 0
    # A gigabyte takes 0.8 s at 10 Gb/s, and 1 s to add.
    assert costs.exchange(2, 10, ring=True) == pytest.approx(2 * 0.4 + 0.5, rel=1e-3)
    assert costs.exchange(2, 10, ring=False) == pytest.approx(2 * 0.8 + 1.0, rel=1e-3)
    assert costs.exchange(1024, 10, ring=True) == pytest.approx(2 * 0.8 + 1.0, rel=0.03)
    assert costs.exchange(1024, 10, ring=False) == pytest.approx(10 * (2 * 0.8 + 1.0), rel=1e-3)
    gradients, exchange = 1 + 65.536 / 2, costs.exchange(2, 10, ring=True)
    assert costs.step(2, 10) == pytest.approx(gradients + exchange + 2)
    assert costs.step(2, 10, accumulated=8) == pytest.approx(gradients + (exchange + 2) / 8)
    assert costs.step(2, 10, overlap=True) == pytest.approx(gradients + 2)
