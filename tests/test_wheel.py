"""The wheel, built and installed away from the checkout, in an environment that has neither JAX nor the compiler."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from plugins.bench_rows import row
from plugins.clean import Environment
from plugins.needs import BARE, MODELS, NEEDS, WITH_COMPILER, Need

from sonew_compiled.runtime import Program, TrainingState, save_parameters

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
    environment["PATH"] = os.pathsep.join([str(binaries), "/usr/bin", "/bin"])

    def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [shutil.which(program, path=environment["PATH"]) or program, *map(str, words)],
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


# Extras for who changes this repository, which no command asks for.
DEVELOPMENT = {"docs", "dev"}


def hints_made_by(path: Path) -> bool:
    """Whether a file makes hints."""
    made = {"require", "install_command", "how_to_import"}
    calls = (node.func for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id in made for called in calls)


def test_every_extra_has_a_hint_and_every_place_that_makes_one_is_tried() -> None:
    assert {extra for need in NEEDS for extra in need.extras.split(",")} == PROJECT["optional-dependencies"].keys() - (
        DEVELOPMENT
    )
    files = [(path, path.relative_to(ROOT / "sonew_compiled")) for path in (ROOT / "sonew_compiled").rglob("*.py")]
    files += [(path, path.relative_to(ROOT)) for path in (ROOT / "runtime").rglob("*.py")]
    made = {str(name.with_suffix("")) for path, name in files if hints_made_by(path)}
    # `main` makes one for what no command has asked for before it imports it, of which there is nothing today.
    assert made - {"install", "cli/_main"} == {need.by for need in NEEDS}


@pytest.fixture(scope="module")
def ended(
    device: Run, wheel: Path, small: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """The ends of all programs: on a device, and for those of libraries where only the compiler is installed."""
    folder = tmp_path_factory.mktemp("needs")
    (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 2.0}\n')
    (folder / "key.pem").write_text("")
    (folder / "rows.jsonl").write_text(json.dumps(row()) + "\n")
    for name, text in MODELS.items():
        (folder / name).write_text(text)
    shutil.copytree(small.bundle, folder / "cuda.bundle")
    manifest = json.loads((small.bundle / "manifest.json").read_text())
    manifest["targets"] = [{**each, "name": "cuda:sm_80", "driver": "cuda"} for each in manifest["targets"]]
    (folder / "cuda.bundle/manifest.json").write_text(json.dumps(manifest))
    program = Program.load(small.bundle)
    save_parameters(folder / "weights.npz", TrainingState.initial(program, seed=0).parameters())
    places = {
        "BUNDLE": small.bundle,
        "ROWS": folder,
        "KEY": folder / "key.pem",
        "CUDA": folder / "cuda.bundle",
        "WEIGHTS": folder / "weights.npz",
    }
    found = {}
    for need in BARE:
        found[need.program] = device(*(places.get(word, word) for word in shlex.split(need.program)))
    environment = Environment(tmp_path_factory.mktemp("compiler") / "venv", wheel)
    environment.install("compile")
    for need in WITH_COMPILER:
        name, *words = need.program.split()
        found[need.program] = subprocess.run(
            [environment.programs / name, *words], cwd=folder, capture_output=True, text=True, check=False
        )
    return found


# The command of pip, for an environment that has none of its own.
HINT = re.compile(r"(pip --python \S+ install) ('\S+')")


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.program)
def test_it_says_how_to_get_what_it_needs(
    ended: dict[str, subprocess.CompletedProcess[str]], wheel: Path, need: Need
) -> None:
    process = ended[need.program]
    assert process.returncode == need.code, process.stderr
    said = process.stderr or process.stdout
    (line,) = [line for line in said.splitlines() if line.startswith(need.said)]
    if need.program != "sonew targets":
        assert said.startswith("Traceback") or said.count("\n") == 1
        said = line
    assert (HINT.search(said) or [""])[2] == f"'{wheel}[{need.extras}]'"


def test_every_hint_works(ended: dict[str, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """pip finds and resolves what the hints ask for; it does not install gigabytes here.

    What they ask for goes to one pip, word by word as it was printed.
    """
    hints = [HINT.findall(process.stderr + process.stdout) for process in ended.values()]
    assert all(hints)
    command = hints[0][0][0]
    printed = sorted({words for found in hints for _, words in found})
    assert len(printed) == len({need.extras for need in NEEDS})
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "PIP_DRY_RUN": "1",
        "PIP_QUIET": "1",
        "PIP_REPORT": str(tmp_path / "report.json"),
    }
    process = subprocess.run(
        ["sh", "-c", " ".join([command, *printed])], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    would = {each["metadata"]["name"].lower() for each in report["install"]}
    extras = PROJECT["optional-dependencies"].keys() - DEVELOPMENT
    asked = {Requirement(line).name for extra in extras for line in PROJECT["optional-dependencies"][extra]}
    assert asked <= would
