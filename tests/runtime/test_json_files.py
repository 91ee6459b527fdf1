"""JSON from unknown authors: read within limits and quickly, and refused on one line."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.errors import SonewError, on_one_line
from sonew_compiled.runtime import read_metrics
from sonew_compiled.runtime.json_files import LARGEST, end_last_line, parse, read_content, read_lines
from sonew_compiled.runtime.schema import (
    SCALAR,
    Unfit,
    anything,
    integer,
    listed,
    mapped,
    nullable,
    number,
    record,
    text,
)
from sonew_compiled.runtime.shown import argument, shown

Refusal = Callable[..., str]

DEEP = b"[" * 100_000
LONG = b"9" * 100_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "'a b'"),
        ("\x1b[2J\n\u202e", "'\\x1b[2J\\n\\u202e'"),
        ("\ud800", "'\\ud800'"),
        (1.5, "1.5"),
        (None, "None"),
        ({"a": [1, {}]}, "{'a': [1, {}]}"),
    ],
)
def test_values_are_shown_as_python_writes_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_values_are_cut() -> None:
    nested: Any = []
    for _ in range(50_000):
        nested = [nested]
    started = time.perf_counter()
    for value in ("x" * 10**7, [7] * 10**6, dict.fromkeys(range(10**5)), nested, 10**4000, 10**5000, "\n" * 100):
        assert 10 < len(shown(value)) <= 60
        assert shown(value).isprintable()
    assert time.perf_counter() - started < 2
    assert on_one_line("a\nb\x07 ü") == "a\\nb\\x07 ü"
    assert argument("-x y") == "'./-x y'"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (DEEP, "nested too deeply"),
        (LONG, "thousands of digits"),
        (b"\xff", "UTF-8"),
        ('"ä"'.encode("utf-16"), "UTF-8"),
        (b"[NaN]", "NaN, which is no number"),
        (b"-Infinity", "-Infinity, which is no number"),
    ],
)
def test_what_is_no_json(content: bytes, said: str) -> None:
    with pytest.raises(Unfit, match=said):
        parse(content)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (integer(1, 9), [1, 9], [0, 10, True, 1.0, "1", None, [], {}]),
        (number(0, 1), [0, 1, 0.5], [-1e-9, 2, float("nan"), float("inf"), True, "0", None, 10**400]),
        (text(3), ["", "abc", "äöü"], ["abcd", "a\nb", "\x1b", "\ud800", 1, None, []]),
        (text(3, printable=False, empty=False), ["a\nb"], ["", "\ud800"]),
        (SCALAR, [None, 1, 1.5, "a", False], [[], {}, "x" * 1000, float("nan")]),
        (nullable(integer()), [None, 0], ["", -1]),
        (listed(integer(), 2), [[], [1, 2]], [[1, 2, 3], ["1"], {}, None, "12"]),
        (mapped(integer(), 1), [{}, {"a": 1}], [{"a": 1, "b": 2}, {"a": None}, {"\n": 1}, [], None]),
        (record({"a": integer()}, {"b": text()}, others=anything), [{"a": 1}, {"b": "", "a": 1, "c": []}], [{}, []]),
        (record({"a": integer()}, {"b": text()}), [{"a": 1, "b": ""}], [{"a": ""}, {"a": 1, "b": 1}, {"b": ""}]),
    ],
)
def test_checks_take_what_fits_and_say_what_does_not(check: Any, good: list[object], bad: list[object]) -> None:
    for value in good:
        assert check(value, "it") == value
    for value in bad:
        with pytest.raises(Unfit, match="it") as caught:
            check(value, "it")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 250


def test_a_record_leaves_out_what_nobody_reads() -> None:
    assert record({"a": integer()})({"a": 1, "c": DEEP}, "it") == {"a": 1}


def test_lines_that_were_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: Refusal) -> None:
    path, check = tmp_path / "lines", record({"a": integer()})

    def read() -> list[Any]:
        return read_lines(path, check, what="a line", remedy="do something")

    assert read() == []
    end_last_line(path, check)
    whole = b'{"a": 1}\n{"a": 2}\n'
    for content, rows, ended in (
        (whole, 2, whole),
        (whole + b'{"a"', 2, whole),
        (whole + b"\0" * 4000, 2, whole),
        (whole[:-1], 2, whole),
        (b'{"a"', 0, b""),
    ):
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(read()) == rows
        assert ("the last line was cut off" in caplog.text) == (len(ended) < len(content))
        end_last_line(path, check)
        assert path.read_bytes() == ended
    path.write_bytes(b'{"a": 1}\n{"a": "\\n"}\n{"a": 1}\n')
    message = refusal(SonewError, read)
    assert f"{path} line 2 is not a line ('a' of the line is '\\n', not a whole number" in message
    assert message.endswith(": do something")
    with path.open("wb") as stream:
        stream.truncate(LARGEST + 1)
    assert "larger than" in refusal(SonewError, read)
    path.unlink()
    path.mkdir()
    assert "no file" in refusal(SonewError, read)
    with pytest.raises(Unfit):
        read_content(path)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        DEEP,
        b'{"step": "1", "epoch": 1, "loss": 1}',
        b'{"step": 1e400, "epoch": 1, "loss": 1}',
        b'{"step": 1, "epoch": 10000000000000000000000, "loss": 1}',
        b'{"step": 1, "epoch": 1, "loss": NaN}',
        b'{"step": 1, "epoch": 1, "loss": 1e300}',
        b'{"step": 1, "epoch": 1, "loss": "\x1b[2J"}',
        b'{"step": 1, "epoch": 1, "loss": "' + b"x" * 10**6 + b'"}',
        b'{"step": 1, "epoch": ' + LONG + b', "loss": 1}',
    ],
    ids=range(11),
)
def test_metrics_of_another_kind(tmp_path: Path, line: bytes, refusal: Refusal) -> None:
    good = json.dumps({"step": 1, "epoch": 1, "loss": 2.5}).encode()
    (tmp_path / "metrics.jsonl").write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    message = refusal(SonewError, lambda: read_metrics(tmp_path))
    assert "metrics.jsonl line 2 is not a line of metrics" in message
    assert message.isprintable()
    assert len(message) < 500
