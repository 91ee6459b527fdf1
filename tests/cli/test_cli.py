"""The command line in general: help, JSON, exit codes, completion, tables, errors on one line."""

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from sonew_compiled.cli import _main, _options

Run = Callable[..., Any]


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(command, click.Group):
        below = [leaf for name, sub in command.commands.items() for leaf in leaves(sub, (*words, name))]
        return [words, *below] if command.invoke_without_command else below
    return [words]


COMMANDS = leaves(_main.sonew)
COMMAND_NAMES = [" ".join(words) for words in COMMANDS]


def test_the_commands_are_these() -> None:
    ours = "run, compile, eval, predict, reconstruct, export, plot, inspect, sign, targets"
    bench = "bench, bench merge, bench compare, bench export"
    assert ", ".join(COMMAND_NAMES) == f"{ours}, {bench}, tune, data fetch, data verify, data pack"


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
    of_the_command = {"output", "data_dir", "learning_rate", "schedule"}
    for name in ("run", "compile", "eval", "reconstruct"):
        for option in _main.sonew.commands[name].params:
            if isinstance(option, click.Option) and option.name not in of_the_command:
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
    for package in ("iree-base-runtime", "iree-base-compiler", "jax", "numpy"):
        assert f"\n{package} {importlib.metadata.version(package)}\n" in result.out


@pytest.mark.parametrize("words", [(), ("data",), *COMMANDS], ids=" ".join)
def test_the_help_of_every_command_takes_a_wide_screen_and_cuts_nothing_on_a_narrow_one(
    sonew: Run, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = sonew(*words, "--help")
    assert result.code == 0
    assert (72 if words == ("data",) else 80) < max(map(len, result.out.splitlines())) <= 100
    monkeypatch.setenv("COLUMNS", "80")
    narrow = sonew(*words, "--help").out
    assert not re.search(r"\.\.\.$", narrow.partition("Commands:")[2], re.M)
    assert not re.search(r"\w-$", narrow, re.M), "a name is broken"
    assert narrow.isascii()


def test_a_default_is_that_of_the_command(sonew: Run) -> None:
    shown = {name: " ".join(sonew(name, "--help").out.split()) for name in ("run", "compile")}
    assert "Peak learning rate. [default: the bundle's, else the optimizer's preset]" in shown["run"]
    assert "Peak learning rate. [default: the optimizer's preset]" in shown["compile"]
    assert "the bundle's" not in shown["compile"]


def test_the_help_of_run_is_in_sections(sonew: Run) -> None:
    sections = dict(re.findall(r"^(\w+):\n(.*?)(?:\n\n|\Z)", sonew("run", "--help").out, re.M | re.S))
    assert list(sections) == ["Options", "Data", "Training", "Compilation", "Optimizer", "Step"]
    shown = {name: set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.M)) for name, text in sections.items()}
    assert {"--output", "--resume", "--device", "--json"} <= shown["Options"]
    assert {"--data", "--data-dir"} == shown["Data"]
    assert {"--epochs", "--schedule", "--warmup-steps", "--seed"} <= shown["Training"]
    assert {"--model", "--target", "--precision"} <= shown["Compilation"]
    assert {"--optimizer", "--band", "--grafting"} <= shown["Optimizer"]


def test_values_of_options_come_from_the_line_then_variables_then_a_file(
    sonew: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "sonew.toml"
    config.write_text('[data.verify]\ndata = "mnist-1"\n[run]\nepochs = 0\n')
    for name, said in (("mnist-1", ()), ("mnist-2", ()), ("mnist-3", ("--data", "mnist-3"))):
        if name == "mnist-2":
            monkeypatch.setenv("SONEW_DATA_VERIFY_DATA", name)
        result = sonew("--config", config, "data", "verify", *said)
        assert (result.code, f"'{name}'" in result.err) == (2, True), result.err
        source = {"mnist-1": f" (from {config})", "mnist-2": " (from SONEW_DATA_VERIFY_DATA)", "mnist-3": ""}[name]
        assert result.err.endswith(f"'mnist-10k', 'mnist'{source}; see `sonew data verify --help`\n")
    assert "'--epochs'" in sonew("--config", config, "run", "bundle").err
    assert "'--epochs'" not in sonew("--config", config, "run", "bundle", "--epochs", 1).err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\nepoch = 3", "has epoch in [run]; give output, data, data-dir, epochs"),
        ("[train]\nepochs = 3", "has train; give a table for run, compile"),
        ("run = 3", "has run; give a table for run, compile"),
        ("[data.get]\ndata = 3", "has data.get; give a table for fetch, verify"),
        ("[run", "is not TOML: "),
        (None, "cannot be read (No such file or directory); give a TOML file"),
    ],
)
def test_a_wrong_file_of_options_is_refused(sonew: Run, tmp_path: Path, text: str | None, said: str) -> None:
    config = tmp_path / "sonew.toml"
    if text is not None:
        config.write_text(text)
    result = sonew("--config", config, "targets")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"sonew: --config {config} {said}")


def test_sonew_is_the_tridiagonal_one(sonew: Run) -> None:
    assert _options.OPTIMIZER.convert("sonew", None, None) == "tridiag-sonew"
    assert "'sonev' is not one of 'diag-sonew', 'tridiag-sonew'" in sonew("compile", "--optimizer", "sonev").err


def test_completion(sonew_apart: Run, tmp_path: Path) -> None:
    script = sonew_apart(cwd=tmp_path, env={"_SONEW_COMPLETE": "zsh_source"})
    assert script.code == 0
    assert "_SONEW_COMPLETE=zsh_complete" in script.out
    for typed, expected in (
        ("sonew comp", ["compile"]),
        ("sonew run --optimizer ban", ["band-sonew"]),
        ("sonew run --target cpu:riscv", ["cpu:riscv64"]),
        ("sonew eval --device local-s", ["local-sync"]),
        ("sonew run --data mnist-", ["mnist-10k", "mnist-"]),  # the last stands for files
    ):
        words = typed.split()
        env = {"_SONEW_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
        completed = sonew_apart(cwd=tmp_path, env=env)
        assert [line.partition(",")[2] for line in completed.out.splitlines()] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bogus", "sonew: No such command 'bogus'; see `sonew --help`"),
        ("rum", "sonew: No such command 'rum'. Did you mean 'run'? See `sonew --help`"),
        ("run --zzz", "sonew run: No such option '--zzz'; see `sonew run --help`"),
        ("inspect", "sonew inspect: Missing argument 'BUNDLE'; see `sonew inspect --help`"),
        ("inspect a b", "sonew inspect: Got unexpected extra argument (b); see `sonew inspect --help`"),
        ("data bogus", "sonew data: No such command 'bogus'; see `sonew data --help`"),
        (
            "run --epochs x",
            "sonew run: Invalid value for '--epochs': 'x' is not a valid integer; see `sonew run --help`",
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
    assert table.out.count("\n") <= 30
    lines, _, about = table.out.partition("\n\n")
    assert max(map(len, table.out.splitlines())) <= 100
    assert "and cpu:NAME for a model of processor: " in about
    for device in {row["reason"].partition(", this one is ")[2] for row in rows.values()}:
        assert device in " ".join(about.split())
    assert lines.split()[:7] == ["targets", "compile", "run", "devices,", "or", "why", "not"]
    # Each target is named once, beside those of which the same is to be said.
    width = lines.index("compile")
    named = [word for line in lines.splitlines()[1:] for word in re.findall(r"[^ ,]+", line[:width])]
    assert sorted(named) == sorted(rows)
    assert re.search(r"^cpu, .*yes +yes +local-task", lines, re.M)
    first = re.search(r"^cpu:aarch64.*", lines, re.M)
    assert first is not None
    assert re.findall(r"\b(?:yes|no)\b", first.group())[:2] == ["yes", "yes" if rows["cpu:aarch64"]["run"] else "no"]


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
        "sonew: cannot read or write the output (No space left on device); check its permissions and the free space\n"
    )


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    from sonew_compiled.cli._say import print_json

    print_json({"loss": float("nan"), "path": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "path": "x"}
