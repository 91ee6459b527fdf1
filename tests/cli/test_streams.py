"""What each command writes where: results on stdout, all else on stderr; --json, --quiet, --verbose and --dry-run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from plugins.bench_rows import row
from plugins.documents import COMMANDS

from sonew_compiled.runtime import read_metrics

Run = Callable[..., Any]

RUN = "run small.bundle --data data.npz --epochs 2"

# Each command line with the start of its result in words, empty for what is only written to files, and of its first
# and its last line on stderr. `sonew-run` is there already.
LINES: dict[str, tuple[str, str, str]] = {
    f"{RUN} -o run": ("train loss ", "epoch 1/2  ", "epoch 2/2  "),
    f"{RUN} -o best --keep-best --patience 3": ("the smallest test loss was ", "epoch 1/2  ", "epoch 2/2  "),
    f"{RUN} -o part --max-steps 9": (
        "train loss ",
        "epoch 1/2  ",
        "stopped after --max-steps 9; go on with: sonew run ",
    ),
    "eval small.bundle --checkpoint sonew-run --data data.npz": ("train loss ", "", ""),
    "predict small.bundle --checkpoint sonew-run --data data.npz": ("", "wrote predictions.npz: ", "wrote "),
    "reconstruct small.bundle --checkpoint sonew-run --data data.npz": ("", "wrote reconstruction.png", "wrote "),
    "export small.bundle --checkpoint sonew-run -o weights.npz": ("", "wrote weights.npz: 2 tensors of ", "wrote "),
    "plot sonew-run": ("", "wrote loss.png", "wrote "),
    "inspect small.bundle": ("bundle     small.bundle, format ", "", ""),
    "sign small.bundle --key key.pem": ("", "wrote small.bundle/manifest.sig", "wrote "),
    "targets": ("targets ", "", ""),
    "bench compare one two": ("| ", "jax differs: ", "jax differs: "),
    "bench export one -o rows.csv": ("", "wrote rows.csv: 1 row", "wrote "),
    "bench merge one two -o both": ("", "wrote both/report.html: 2 rows of 2 machines", "wrote "),
    "data verify --data mnist-10k": ("valid    t10k-images-idx3-ubyte: ", "", ""),
    "data pack data.npz packed": ("", "wrote packed (", "wrote "),
    "run small.bundle --data data.npz -o dry --dry-run": ("setting ", "dry run: ", "dry run: "),
    "run --dry-run -o dry": ("setting ", "dry run: ", "dry run: "),
    "compile --model autoencoder-small --dry-run -o dry": ("setting ", "dry run: ", "dry run: "),
    "bench --optimizer adam --dry-run -o dry": ("setting ", "dry run: ", "dry run: "),
    "bench --preset speed --dry-run -o dry": ("setting ", "dry run: ", "dry run: "),
    "tune --trials 2 --dry-run -o dry": ("setting ", "dry run: ", "dry run: "),
}
LEAVES = [words for words, each in COMMANDS.items() if getattr(each, "invoke_without_command", True)]


@pytest.fixture(scope="module")
def prepared(small: Any, sonew_apart: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, two benchmarks and a key beside the small bundle."""
    folder = tmp_path_factory.mktemp("streams")
    shutil.copytree(small.bundle, folder / "small.bundle")
    shutil.copy(small.data, folder)
    assert sonew_apart(*RUN.split(), cwd=folder).code == 0
    for name, jax in (("one", "0.10.2"), ("two", "0.10.3")):
        (folder / name).mkdir()
        written = json.dumps(row(machine=name, host=name, versions={"jax": jax}))
        (folder / name / "rows.jsonl").write_text(f"{written}\n")
    key = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(key)
    return folder


@pytest.fixture
def in_folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working directory."""
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("line", LINES)
def test_results_go_to_stdout_and_the_rest_to_stderr(sonew: Run, in_folder: Path, line: str) -> None:
    out, first, last = LINES[line]
    before = sorted(in_folder.rglob("*"))
    told = sonew(*line.split())
    assert told.code == 0, told.err
    assert told.out.startswith(out)
    assert bool(told.out) is bool(out)
    said = told.err.splitlines() or [""]
    assert said[0].startswith(first)
    assert said[-1].startswith(last)
    assert bool(told.err) is bool(first)
    if "--dry-run" in line:
        assert sorted(in_folder.rglob("*")) == before
    for made in {path.relative_to(in_folder).parts[0] for path in {*in_folder.rglob("*")} - {*before}}:
        if not (in_folder / made).is_dir():
            (in_folder / made).unlink()
        elif in_folder / made not in before:
            shutil.rmtree(in_folder / made)
    quiet = sonew(*line.split(), "--quiet", "--json")
    assert (quiet.code, quiet.err) == (0, "")
    assert isinstance(quiet.json, dict | list)


def test_the_table_has_every_command() -> None:
    """But those that need the network, or compile; tests of their own show what these print."""
    shown = {" ".join(word for word in line.split() if word in " ".join(map(" ".join, COMMANDS))) for line in LINES}
    for words in LEAVES:
        assert any(each.startswith(" ".join(words)) for each in shown | {"data fetch"}), words


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_the_options_about_its_output(words: tuple[str, ...]) -> None:
    flags = {flag for option in COMMANDS[words].params for flag in option.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v"} <= flags
    assert ("--dry-run" in flags) is (words in {("run",), ("compile",), ("bench",), ("tune",)})


def test_verbose_says_what_is_done(sonew: Run, in_folder: Path) -> None:
    result = sonew(*RUN.split(), "-o", "run", "-v")
    assert result.code == 0, result.err
    for said in (
        "bundle small.bundle\n",
        "data set data.npz: 180 to train on, 25 to test\n",
        "loaded small.bundle/cpu.vmfb on local-task (the CPU, on all cores) in ",
        "wrote run/step-00000018.safetensors in ",
        "sonew run took ",
    ):
        assert said in result.err
    assert "took" not in sonew("inspect", "small.bundle").err
    both = sonew("targets", "-v", "-q")
    assert (both.code, both.out) == (2, "")
    assert both.err == "sonew: --verbose says more and --quiet says less; leave one of them out\n"


def test_a_dry_run_names_the_source_of_each_setting(
    sonew: Run, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sonew.toml").write_text("[run]\nbatch-size = 50\n[bench]\nepochs = 2\n")
    monkeypatch.setenv("SONEW_RUN_SEED", "7")
    line = (
        "--config",
        "sonew.toml",
        "run",
        "--epochs",
        3,
        "--optimizer",
        "band-sonew",
        "-o",
        "new",
        "--dry-run",
        "--json",
    )
    plan = sonew(*line).json
    assert plan["command"] == "sonew run"
    found = {name: (each["value"], each["source"]) for name, each in plan["settings"].items()}
    assert found["epochs"] == (3, "command line")
    assert found["seed"] == (7, "SONEW_RUN_SEED")
    assert found["batch-size"] == (50, "sonew.toml")
    assert found["band"] == (4, "preset short of band-sonew")
    assert found["schedule"] == ("cosine", "default")
    assert plan["steps"] == 3 * 9000 // 50
    assert plan["files"][:2] == ["new/bundle/manifest.json", "new/bundle/module.stablehlo"]
    monkeypatch.delenv("SONEW_RUN_SEED")
    monkeypatch.setenv("SONEW_RUN_KEEP", "7")
    resumed = sonew("run", "small.bundle", "--resume", "sonew-run", "--epochs", 4, "--dry-run", "--json").json
    source = "checkpoint sonew-run/step-00000018.safetensors"
    assert resumed["settings"]["learning-rate"] == {"value": 0.007, "source": source}
    assert resumed["settings"]["data"] == {"value": "data.npz", "source": source}
    assert (resumed["steps"], resumed["targets"]) == (36, ["cpu"])
    assert resumed["settings"]["seed"] == {"value": 0, "source": source}
    assert resumed["settings"]["keep"] == {"value": 7, "source": "SONEW_RUN_KEEP"}
    runs = sonew("--config", "sonew.toml", "bench", "--optimizer", "adam", "--dry-run", "--json").json
    assert runs["settings"]["epochs"] == {"value": 2, "source": "sonew.toml"}
    assert [each.partition(" seed")[0] for each in runs["runs"]] == [
        "adam f32 cpu on local-task",
        "adam bf16-pure cpu on local-task",
    ]


def test_a_dry_run_refuses_what_the_command_would(sonew: Run, in_folder: Path) -> None:
    arrays = dict(np.load("data.npz"))
    np.savez("other.npz", **{name: array[::-1] for name, array in arrays.items()})
    for line, said in (
        ("run small.bundle --data data.npz", "sonew-run holds another run up to step-00000018.safetensors"),
        ("run small.bundle --data data.npz --band 3 -o new", "--band is compiled into the bundle small.bundle"),
        ("run small.bundle --data nothing.npz -o new", "there is no file `nothing.npz`"),
        ("run small.bundle --data data.npz --device abacus -o new", "abacus"),
        ("run small.bundle --resume sonew-run --seed 1", "was trained with seed 0, this run has 1"),
        ("run small.bundle --resume sonew-run --epochs 1", "is at step 18, beyond the 9 steps of 1 epoch"),
        ("run small.bundle --resume sonew-run --data other.npz", "was trained with data with fingerprint"),
        ("compile --target abacus", "abacus"),
        ("compile -o data.npz", "data.npz is a file"),
        ("bench -o one --optimizer adam", "one"),
        ("tune", "no budget: give --budget, --trials or --minutes"),
    ):
        asked = sonew(*line.split(), "--dry-run")
        assert (asked.code, asked.out, asked.err.count("\n")) == (2, "", 1), asked.err
        assert said in asked.err
        if "--resume" in line:
            assert sonew(*line.split()).err == asked.err
    assert len(read_metrics("sonew-run")) == 2
