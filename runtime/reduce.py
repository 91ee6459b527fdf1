"""Sums over the micro-batches of a batch, in one fixed order that does not depend on the workers.

Floating-point sums depend on their order. This one is a binary tree over the micro-batches' numbers: neighbours are
added, then the sums of neighbours, and the rest at the right end is added from right to left. Five micro-batches make
((0 + 1) + (2 + 3)) + 4. A worker with consecutive micro-batches adds the parts of the tree within them, and the rest is
added where these parts meet. So the bits are those of a single worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Node(Generic[T]):
    """The sum over `size` micro-batches, a power of two, from number `start` on, which is a multiple of it."""

    start: int
    size: int
    value: T


def push(nodes: list[Node[T]], node: Node[T], add: Callable[[T, T], T]) -> None:
    """Append the next node, and merge it with those before as far as they form larger nodes.

    Args:
      nodes: consecutive nodes; the list is changed in place.
      node: the node that starts where they end.
      add: returns the sum of two values, the left one first; it may change them.
    """
    while nodes and nodes[-1].size == node.size and nodes[-1].start % (2 * node.size) == 0:
        left = nodes.pop()
        node = Node(left.start, 2 * left.size, add(left.value, node.value))
    nodes.append(node)


def total(nodes: Iterable[Node[T]], add: Callable[[T, T], T]) -> T:
    """The sum over a whole batch.

    Args:
      nodes: consecutive nodes from micro-batch 0 on, from the `push` of each worker.
      add: see `push`.
    """
    row: list[Node[T]] = []
    for node in nodes:
        push(row, node, add)
    assert row, "no micro-batches"
    assert row[0].start == 0, row
    value = row.pop().value
    while row:
        value = add(row.pop().value, value)
    return value
