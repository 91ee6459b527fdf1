"""Code for 64-bit Arm, run by the command line of an Arm Python under emulation."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ARM_PYTHON = Path(sys.prefix) / "aarch64" / "python"
TRAIN = ("run", "ae.bundle", "--data", "data.npz", "--epochs", "2", "--json", "--overwrite")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_trains_as_this_machine_does(
    precision: str, small: Any, wheel: Path, tmp_path: Path, sonew_apart: Callable[..., Any]
) -> None:
    if not ARM_PYTHON.exists():
        pytest.skip(f"there is no {ARM_PYTHON}: tools/install_aarch64.sh makes it where Debian's packages can be had")
    for name in ("small_model.py", "data.npz"):
        (tmp_path / name).write_bytes((small.path / name).read_bytes())
    compiled = sonew_apart(
        *("compile", "-o", "ae.bundle", "--model", "small_model:model", "--batch-size", 20, "--precision", precision),
        *("--eps", "1e-2", "--target", "cpu", "--target", "cpu:aarch64"),
        cwd=tmp_path,
    )
    assert compiled.code == 0, compiled.err
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    here = sonew_apart(*TRAIN, "-o", "here", cwd=tmp_path)
    assert here.code == 0, here.err
    there = subprocess.run(
        [ARM_PYTHON, "-c", "from sonew_compiled.cli import main; main()", *TRAIN, "-o", "there"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert there.returncode == 0, there.stderr
    result = json.loads(there.stdout)
    assert result["target"] == "cpu:aarch64"
    tolerance = 1e-4 if precision == "f32" else 2e-2
    for key in ("train_loss", "test_loss"):
        assert result[key] == pytest.approx(here.json[key], rel=tolerance)
