"""The stages of compiling on a terminal: a spinner with the elapsed time, and a line above it for each that is done."""

import io
import re
import sys

import pytest

from sonew_compiled.cli._progress import Stages


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_spinner_shows_the_elapsed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with Stages() as stages:
        stages("trace [small]")
        stages("compile for cpu")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue()).replace("\r", "\n")
    assert re.search(r"^[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] trace \[small\] +0:00:0\d", text, re.M)
    done = re.findall(r"^(.+): \d+\.\d s$", text, re.M)
    assert done == ["trace [small]", "compile for cpu"]


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        stages("trace small")
        stages("compile for cpu")
    assert capsys.readouterr().err == "trace small\ncompile for cpu\n"
