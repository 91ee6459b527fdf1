"""The command line in general: help, JSON, exit codes, completion, tables, errors on one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from sonew_compiled.cli import _main

Run = Callable[..., Any]


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(command, click.Group):
        return [leaf for name, sub in command.commands.items() for leaf in leaves(sub, (*words, name))]
    return [words]


COMMANDS = leaves(_main.sonew)
COMMAND_NAMES = [" ".join(words) for words in COMMANDS]


def test_the_commands_are_these() -> None:
    ours = "run, compile, eval, reconstruct, plot, inspect, sign, targets, bench, tune"
    assert ", ".join(COMMAND_NAMES) == f"{ours}, data fetch, data verify, data pack"


@pytest.mark.parametrize("words", [(), ("data",), *COMMANDS], ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help_with_examples(sonew: Run, words: tuple[str, ...], flag: str) -> None:
    result = sonew(*words, flag)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: {' '.join(('sonew', *words))} ")
    examples = result.out.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    assert examples
    assert all(line.startswith("    sonew ") for line in examples)
    assert all(len(line) <= 100 for line in examples)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_has_help(words: tuple[str, ...]) -> None:
    command: click.Command = _main.sonew
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


def test_an_option_means_the_same_everywhere() -> None:
    seen: dict[str, tuple[str, ...]] = {}
    for name in ("run", "compile", "eval", "reconstruct"):
        for option in _main.sonew.commands[name].params:
            if isinstance(option, click.Option) and "--output" not in option.opts and option.name != "data_dir":
                about = (str(option.type), str(option.help), str(option.multiple))
                assert seen.setdefault(option.opts[0], about) == about, f"{option.opts[0]} of {name}"


def test_no_command_shows_the_help(sonew: Run) -> None:
    for words in ((), ("data",)):
        result = sonew(*words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"Usage: {' '.join(('sonew', *words))} ")


def test_the_version(sonew: Run) -> None:
    result = sonew("--version")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("sonew, version ")


def test_completion(sonew_apart: Run, tmp_path: Path) -> None:
    script = sonew_apart(cwd=tmp_path, env={"_SONEW_COMPLETE": "zsh_source"})
    assert script.code == 0
    assert "_SONEW_COMPLETE=zsh_complete" in script.out
    for typed, expected in (("sonew comp", ["compile"]), ("sonew run --optimizer ban", ["band-sonew"])):
        words = typed.split()
        env = {"_SONEW_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
        completed = sonew_apart(cwd=tmp_path, env=env)
        assert [line.partition(",")[2] for line in completed.out.splitlines()] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bogus", "sonew: No such command 'bogus'; see `sonew --help`"),
        ("run --foo", "sonew run: No such option '--foo'; see `sonew run --help`"),
        ("inspect", "sonew inspect: Missing argument 'BUNDLE'; see `sonew inspect --help`"),
        ("inspect a b", "sonew inspect: Got unexpected extra argument (b); see `sonew inspect --help`"),
        ("data bogus", "sonew data: No such command 'bogus'; see `sonew data --help`"),
        (
            "run --epochs x",
            "sonew run: Invalid value for '--epochs': 'x' is not a valid integer range; see `sonew run --help`",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(sonew: Run, line: str, expected: str) -> None:
    result = sonew(*line.split())
    assert (result.code, result.out) == (2, "")
    assert result.err == expected + "\n"


def test_targets(sonew: Run) -> None:
    result = sonew("targets", "--json")
    assert (result.code, result.err) == (0, "")
    rows = {row["name"]: row for row in result.json}
    for row in rows.values():
        assert {"name", "compile", "run", "reason"} <= row.keys()
        assert type(row["run"]) is bool
        assert bool(row["reason"]) is not (row["compile"] and row["run"])
        assert bool(row["devices"]) is row["run"]
        assert "\n" not in row["reason"]
    assert rows["cpu"]["compile"]
    assert rows["cpu"]["run"]
    assert "local-task" in rows["cpu"]["devices"]
    table = sonew("targets")
    assert (table.code, table.err) == (0, "")
    *lines, empty, named = table.out.splitlines()
    assert [line.split()[0] for line in lines] == ["target", *rows]
    assert (empty, named[:14]) == ("", "and cpu:NAME f")
    assert lines[0].split() == ["target", "compile", "run", "devices", "reason"]


def test_inspect(sonew: Run, small: Any) -> None:
    result = sonew("inspect", small.bundle, "--json")
    assert (result.code, result.err) == (0, "")
    manifest = result.json
    assert manifest["bundle"] == str(small.bundle)
    assert manifest["model"] == "small_model:model"
    assert manifest["parameters"] == 2 * 36 * 5
    assert manifest["optimizer"]["name"] == "tridiag-sonew"
    assert manifest["functions"].keys() == {"init", "train_step", "eval_step", "predict"}
    assert manifest["files"].keys() == {"cpu.vmfb", "module.stablehlo"}
    table = sonew("inspect", small.bundle)
    assert (table.code, table.err) == (0, "")
    for word in (
        "small_model:model",
        "360 parameters",
        "batches of 20",
        "tridiag-sonew",
        "float32[20, 36]",
        "cpu.vmfb",
    ):
        assert word in table.out
    assert manifest["files"]["cpu.vmfb"]["sha256"][:12] in table.out


def test_compile_prints_one_json_object(small: Any) -> None:
    compiled = small.compiled.json
    assert compiled.keys() == {"bundle", "seconds", "targets", "files"}
    assert (compiled["bundle"], compiled["targets"]) == ("small.bundle", ["cpu"])
    assert compiled["files"] == {
        name: (small.bundle / name).stat().st_size for name in ("cpu.vmfb", "module.stablehlo")
    }
    assert small.compiled.err.splitlines()[-1].endswith("train with: sonew run small.bundle")


@pytest.mark.parametrize("name", ["mnist-10k", "mnist"])
def test_data_verify(sonew: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("SONEW_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # the user's cache may hold the data
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"no images")
    result = sonew("data", "verify", "--data", name, "--json")
    assert result.json["usable"] is (name == "mnist-10k")
    assert {row["file"]: row["status"] for row in result.json["files"]} == (
        {"t10k-images-idx3-ubyte": "valid", "t10k-labels-idx1-ubyte": "valid"}
        if name == "mnist-10k"
        else {
            "train-images-idx3-ubyte": "invalid",
            "train-labels-idx1-ubyte": "missing",
            "t10k-images-idx3-ubyte": "missing",
            "t10k-labels-idx1-ubyte": "missing",
        }
    )
    assert result.code == (0 if name == "mnist-10k" else 1)
    assert len(result.err.splitlines()) == result.code


def test_fetching_that_fails_says_where_the_files_go(
    sonew: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonew_compiled.runtime.data import fetch

    monkeypatch.setattr(fetch, "MIRRORS", ("http://127.0.0.1:9/",))
    result = sonew("data", "fetch", "--data-dir", tmp_path / "mnist", "--json")
    assert (result.code, result.out) == (1, "")
    assert len(result.err.splitlines()) == 1
    assert "127.0.0.1:9" in result.err
    assert f"from any copy of MNIST into {tmp_path / 'mnist'}" in result.err


def test_a_reader_that_has_gone_is_no_error(small: Any) -> None:
    script = Path(sys.executable).parent / "sonew"
    process = subprocess.run(
        ["bash", "-c", '"$0" inspect "$1" --json | true; exit ${PIPESTATUS[0]}', script, small.bundle],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stderr == ""
    assert process.returncode in (0, 1)  # 0 if the output fits into the pipe before its reader closes


def test_output_that_cannot_be_written_is_one_line(small: Any) -> None:
    script = Path(sys.executable).parent / "sonew"
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [script, "inspect", small.bundle, "--json"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert process.returncode == 1
    assert process.stderr == (
        "sonew: cannot read or write the output (No space left on device); check that it may be, and free space\n"
    )


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    from sonew_compiled.cli._options import print_json

    print_json({"loss": float("nan"), "path": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "path": "x"}


def test_an_error_while_xla_is_at_work_ends_the_process(sonew: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's shutdown would wait for its threads, and abort: `tune` that is stopped says so by an error."""
    codes = []

    def ended(code: int) -> None:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("sonew_compiled.background.end_process", ended)
    assert (sonew("inspect", "nothing").code, codes) == (2, [2])


def test_ctrl_c_while_the_program_is_loaded_is_one_line() -> None:
    program = """
import sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == "sonew_compiled.cli._main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from sonew_compiled.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "sonew: stopped\n")
