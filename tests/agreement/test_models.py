"""Whole models of twenty kinds, small, over twenty steps with three optimizers."""

import pytest
from agreement.kinds import KINDS
from agreement.rows import Table, by_optimizers

RUNS = by_optimizers(KINDS)

# All of the others in one module would give a dispatch more bindings than IREE has.
SEQUENCES = {name: case for name, case in RUNS.items() if name.startswith(("GRU", "LSTM", "state space"))}
TABLES = (
    Table(SEQUENCES, group=9, rate=1e-3, chained=20, evaluates=False),
    Table(RUNS, group=3, rate=1e-3, chained=20, evaluates=False),
)


@pytest.mark.parametrize("name", RUNS)
def test_it_trains_as_in_jax(name: str) -> None:
    assert not next(table for table in TABLES if name in table.rows).disagreements(name)
