"""The wheel, built and installed away from the checkout, in an environment that has neither JAX nor the compiler."""

import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugins.bench_rows import row

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of an environment with nothing but the wheel, in an empty folder."""
    path = tmp_path_factory.mktemp("device")
    venv.create(path / "venv", symlinks=os.name != "nt")
    binaries = path / "venv" / "bin"
    words = ("--python", binaries / "python", "install", "--quiet", "--no-compile", "--disable-pip-version-check")
    installed = subprocess.run(
        [sys.executable, "-m", "pip", *words, "-c", ROOT / "constraints.txt", wheel],
        cwd=path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    folder = path / "folder"
    folder.mkdir()
    hidden = ("PYTHONPATH", "PYTHONHOME", "SONEW_DATA")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}

    def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binaries / program, *map(str, words)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_wheel_holds_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        information = next(name.partition("/")[0] for name in names if name.endswith("/METADATA"))
        metadata = archive.read(f"{information}/METADATA").decode()
    assert f"{information}/licenses/LICENSE" in names
    for name in (
        *("sonew_compiled/py.typed", "sonew_compiled/cli/_main.py", "sonew_compiled/models/autoencoder.py"),
        *(
            "sonew_compiled/passes/pipeline.py",
            "sonew_compiled/runtime/train.py",
            "sonew_compiled/runtime/data/load.py",
        ),
        "sonew_compiled/runtime/data/t10k-images-idx3-ubyte.gz",
        "sonew_compiled/runtime/data/t10k-labels-idx1-ubyte.gz",
    ):
        assert name in names
    licences = [name for name in names if name.startswith("sonew_compiled/runtime/data/") and name.endswith(".md")]
    assert licences, "the data's licence note"
    assert {name.split("/")[0] for name in names} == {"sonew_compiled", information}
    for path in (*(ROOT / "runtime").rglob("*.py"), *(ROOT / "passes").rglob("*.py")):
        assert f"sonew_compiled/{path.relative_to(ROOT)}" in names
    for path in (ROOT / "sonew_compiled").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    assert "Provides-Extra: compile" in metadata
    # 1.6 MB of the wheel are the embedded images.
    assert wheel.stat().st_size < 3_000_000


def test_the_environment_has_neither_jax_nor_the_compiler(device: Run) -> None:
    code = """
import importlib.metadata, importlib.util, json, sonew_compiled
print(json.dumps({
    "distributions": sorted(d.metadata["Name"].lower().replace("_", "-") for d in importlib.metadata.distributions()),
    "found": [name for name in ("jax", "jaxlib", "optax", "scipy", "iree.compiler", "matplotlib")
              if importlib.util.find_spec(name)],
    "at": sonew_compiled.__file__,
}))
"""
    process = device("python", "-c", code)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["found"] == []
    assert str(ROOT) not in result["at"]
    required = {name.partition(">=")[0].lower().replace("_", "-") for name in PROJECT["dependencies"]}
    assert required <= set(result["distributions"])
    # Beside these there are only the requirements of rich.
    assert set(result["distributions"]) - required <= {
        *("sonew-compiled", "markdown-it-py", "mdurl", "pygments"),
    }


def test_importing_the_runtime_works(device: Run) -> None:
    code = (
        "from sonew_compiled.runtime import *; "
        "print(open_device().name, load_dataset('mnist-10k').train['image'].shape)"
    )
    process = device("python", "-W", "error", "-c", code)
    assert (process.returncode, process.stdout) == (0, "local-task (9000, 28, 28)\n"), process.stderr


def test_a_bundle_trains_there(device: Run, autoencoder_bundle: Path) -> None:
    process = device("sonew", "run", autoencoder_bundle, "--epochs", 1, "--warmup-epochs", 0, "--json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["steps"] == 30
    assert result["bundle"] == str(autoencoder_bundle)
    assert 100 < result["test_loss"] < 300
    # An untrained model has 784 log 2 = 543.
    assert 100 < result["train_loss"] < 300
    resumed = device("sonew", "run", autoencoder_bundle, "--resume", "sonew-run", "--json")
    assert json.loads(resumed.stdout)["train_loss"] == result["train_loss"]
    evaluated = device("sonew", "eval", autoencoder_bundle, "--checkpoint", "sonew-run", "--json")
    assert json.loads(evaluated.stdout)["test_loss"] == result["test_loss"]
    drawn = device("sonew", "reconstruct", autoencoder_bundle, "--checkpoint", "sonew-run")
    assert (drawn.returncode, drawn.stderr) == (0, "wrote reconstruction.png\n")


def test_what_can_be_done_there(device: Run, small: Any) -> None:
    process = device("sonew", "targets", "--json")
    assert process.returncode == 0, process.stderr
    rows = {row["name"]: row for row in json.loads(process.stdout)}
    assert not any(row["compile"] for row in rows.values())
    assert rows["cpu"]["run"]
    assert rows["cpu"]["reason"].endswith("[compile]'")
    table = device("sonew", "targets").stdout
    assert (table.count("[compile]'"), table.count("[compile,tpu]'")) == (1, 1)
    assert table.count("\n") <= 32
    for line in ("inspect BUNDLE", "inspect BUNDLE --json", "data verify --data mnist-10k"):
        assert device("sonew", *line.replace("BUNDLE", str(small.bundle)).split()).returncode == 0


# What each command of the bare package says that it needs, and the extras that its hint names.
NEEDS = {
    "compile": ("compiling needs jax, optax, iree.compiler, which are not installed", "compile"),
    "compile --model mine:model": ("compiling needs jax, optax, iree.compiler, which are not installed", "compile"),
    "compile --target tpu": ("compiling needs jax, optax, iree.compiler, libtpu, which are not", "compile,tpu"),
    "run": ("no bundle given, and the compiler is not installed here", "compile"),
    **{
        f"run BUNDLE --log {name}": (f"sonew run --log {name} needs {name}, which is not installed", name)
        for name in ("tensorboard", "wandb", "mlflow")
    },
    "tune --trials 1": ("sonew tune needs jax, optax, iree.compiler, optuna, which are not installed", "tune"),
    "bench": (
        "sonew bench needs jax, optax, iree.compiler, matplotlib, jinja2, plotly, psutil, which are not installed",
        "bench",
    ),
    "bench --preset speed": (
        "sonew bench needs jax, optax, iree.compiler, matplotlib, jinja2, plotly, psutil, which",
        "bench",
    ),
    "bench merge METRICS -o both": ("this needs jinja2, which is not installed", "bench"),
    "bench export METRICS -o rows.parquet": ("this needs pyarrow, which is not installed", "parquet"),
    "plot METRICS": ("sonew plot needs matplotlib, which is not installed", "plot"),
    "sign BUNDLE --key KEY": ("this needs cryptography, which is not installed", "sign"),
}


@pytest.fixture(scope="module")
def hints(device: Run, small: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The lines on stderr, by command."""
    folder = tmp_path_factory.mktemp("needs")
    (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 2.0}\n')
    (folder / "key.pem").write_text("")
    (folder / "rows.jsonl").write_text(json.dumps(row()) + "\n")
    places = {"METRICS": folder, "BUNDLE": small.bundle, "KEY": folder / "key.pem"}
    said = {}
    for line in NEEDS:
        process = device("sonew", *(places.get(word, word) for word in line.split()))
        assert (process.returncode, process.stdout) == (1, ""), line
        said[line] = process.stderr
    return said


@pytest.mark.parametrize("line", NEEDS)
def test_a_command_says_how_to_get_what_it_needs(hints: dict[str, str], wheel: Path, line: str) -> None:
    needed, extras = NEEDS[line]
    assert hints[line].startswith(f"sonew: {needed}")
    assert hints[line].endswith(f"/venv/bin/python install '{wheel}[{extras}]'\n")  # an environment without pip
    assert hints[line].count("\n") == 1


def test_every_hint_works(hints: dict[str, str], tmp_path: Path) -> None:
    """pip finds and resolves what the hints ask for; it does not install hundreds of megabytes here.

    The hints differ in their extras alone, so that one command asks for all of them.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    names = {extra for _, extras in NEEDS.values() for extra in extras.split(",")}
    hint = hints["compile"][hints["compile"].index("pip --python ") :].strip()
    command = hint.replace("[compile]", f"[{','.join(sorted(names))}]")
    words = f"{command} --dry-run --quiet --report {tmp_path}/report.json"
    process = subprocess.run(["sh", "-c", words], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    would = {each["metadata"]["name"].lower() for each in report["install"]}
    asked = [each.partition(";")[0] for name in names for each in PROJECT["optional-dependencies"][name]]
    assert {requirement.partition(">=")[0] for requirement in asked} <= would
    assert {"compile", "tune", "bench", "plot", "sign", "tpu", "parquet", "wandb"} <= names
