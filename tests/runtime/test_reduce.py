"""The order of sums: the same tree, whichever worker adds which part."""

import itertools

import numpy as np
import pytest

from sonew_compiled.runtime.reduce import Node, push, total


def written(left: str, right: str) -> str:
    return f"({left}{right})"


@pytest.mark.parametrize(
    ("count", "tree"),
    [
        (1, "0"),
        (2, "(01)"),
        (3, "((01)2)"),
        (5, "(((01)(23))4)"),
        (7, "(((01)(23))((45)6))"),
        (8, "(((01)(23))((45)(67)))"),
    ],
)
def test_the_tree_is_one_for_all_ways_to_share_the_micro_batches(count: int, tree: str) -> None:
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, count), k) for k in range(count)):
        gathered = []
        for start, end in itertools.pairwise((0, *cuts, count)):
            row: list[Node[str]] = []
            for number in range(start, end):
                push(row, Node(number, 1, str(number)), written)
            assert sum(node.size for node in row) == end - start
            gathered += row
        assert total(gathered, written) == tree


def test_it_is_more_exact_than_a_sum_one_by_one() -> None:
    """The error of a tree grows as the logarithm of the count: 4096 times 0.1 in float32."""
    row: list[Node[np.float32]] = []
    for number in range(4096):
        push(row, Node(number, 1, np.float32(0.1)), np.add)
    assert total(row, np.add) == np.float32(4096) * np.float32(0.1)
    one_by_one = sum([np.float32(0.1)] * 4096, start=np.float32(0))
    assert abs(float(one_by_one) - 4096 * float(np.float32(0.1))) > 1e-4
