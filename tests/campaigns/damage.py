"""Damage to files: bytes that change in transit, and JSON that a stranger may write."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2, 3.5, 10**30, -(10**30), 1e308, float("nan"), float("inf")),
    *("", "x", "7", "../x", "/etc/passwd", "a\nb", "\x1b[2J", "\ud800", "x" * 100_000, "float32", "complex64", "M8[s]"),
    *([], {}, [[]], [None], {"": 0}, {"a": {"b": 1}}, [0] * 1000, [[1, 2], [3, 4]]),
)


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content with some bytes changed, removed, added or exchanged."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 2, 8, 64, 1000))
        kind = rng.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = rng.randbytes(length)
        elif kind == 5:
            data[at : at + length] = bytes(len(data[at : at + length]))
        else:
            data[at : at + 8] = rng.choice((b"\0" * 8, b"\xff" * 8, (1 << 62).to_bytes(8, "little"), b"[" * 8))
    return bytes(data)


def of_json(value: Any, rng: random.Random) -> bytes:
    """The JSON text of a value with one part of another kind, missing, doubled, or far too large."""
    changed = {"value": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        inside, key = _place(changed, rng)
        kind = rng.randrange(8)
        if kind < 4:
            inside[key] = copy.deepcopy(rng.choice(_ODD))
        elif kind == 4 and inside is not changed:
            del inside[key]
        elif kind == 5 and isinstance(inside, dict):
            inside[rng.choice(("", "again", "\n", key + "x", "x" * 10_000))] = copy.deepcopy(inside[key])
        elif kind == 6 and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        else:
            inside[key] = _similar(inside[key], rng)
    text = json.dumps(changed["value"])
    if rng.random() < 0.05:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(("[" * 200_000, "9" * 10_000, "{", '"\\ud800"', "NaN", "\x00")) + text[at:]
    return text.encode()


def of_lines(rows: list[Any], rng: random.Random) -> bytes:
    """A file of JSON lines with one of them damaged, or bytes of it."""
    lines = [json.dumps(row).encode() for row in rows]
    if rng.random() < 0.3:
        return of_bytes(b"\n".join(lines) + b"\n", rng)
    at = rng.randrange(len(lines))
    lines[at] = of_json(rows[at], rng)
    if rng.random() < 0.1:
        lines *= 3
    return b"\n".join(lines) + b"\n" * (rng.random() < 0.8)


def _place(root: dict[str, Any], rng: random.Random) -> tuple[Any, Any]:
    """A random place in nested objects and lists."""
    inside: Any = root
    key: Any = "value"
    while isinstance(inside[key], dict | list) and inside[key] and rng.random() < 0.85:
        inside = inside[key]
        key = rng.choice(list(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
    return inside, key


def _similar(value: Any, rng: random.Random) -> Any:
    """A similar value: a number or a text of another size, a list in another order."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((-value, value + 1, value * 10**6, value / 3, str(value)))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + value, value.upper(), value + "\u202e", value + "/..", value + "\x00"))
    items = list(value.items()) if isinstance(value, dict) else list(value)
    rng.shuffle(items)
    return dict(items[:-1]) if isinstance(value, dict) else items
