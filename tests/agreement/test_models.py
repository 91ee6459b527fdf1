"""Whole models of twenty kinds, small, over twenty steps with three optimizers."""

import pytest
from agreement.kinds import KINDS
from agreement.rows import Table, by_optimizers

RUNS = by_optimizers(KINDS)

TABLE = Table(RUNS, group=3, rate=1e-3, chained=20, evaluates=False)


@pytest.mark.parametrize("name", RUNS)
def test_it_trains_as_in_jax(name: str) -> None:
    assert not TABLE.disagreements(name)
