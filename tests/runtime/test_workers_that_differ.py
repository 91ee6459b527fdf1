"""Workers that cannot do the same work: refused before the first step, with the worker and what differs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sonew_compiled import runtime
from sonew_compiled.cli._workers import device_of
from sonew_compiled.runtime import DeviceInfo
from sonew_compiled.runtime.launcher import launched

pytest.importorskip("mpi4py", reason="there is no MPI: pip install -e '.[mpi]'")

LIMIT = 120

# `sonew`, in whose second worker a statement is executed first.
MAIN = """
import importlib.metadata, sys
from pathlib import Path
from sonew_compiled.cli import main
from sonew_compiled.mpi_environment import rank_started
from sonew_compiled.runtime import bundle
statement = sys.argv.pop(1)
if rank_started() == 1:
    exec(statement)
main()
"""

OTHER_RELEASE = """
found = importlib.metadata.version
importlib.metadata.version = lambda name: "9.9.9" if name == "sonew-compiled" else found(name)
"""


@pytest.fixture(scope="module")
def other_bundle(parts_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program and another file beside it, as of another compilation."""
    path = tmp_path_factory.mktemp("bundles") / "other"
    shutil.copytree(parts_bundle, path)
    manifest = path / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    (path / "note.txt").write_text("", encoding="utf-8")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    entry = f'"files": {{"note.txt": {{"sha256": "{empty}", "size": 0}}, '
    before, found, after = text.partition('"files": {')
    assert found
    manifest.write_text(before + entry + after.lstrip(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("sys.argv[2] = OTHER", "sonew: worker 1 has the bundle "),
        (OTHER_RELEASE, "sonew: worker 1 has sonew-compiled 9.9.9, worker 0 has "),
        ("bundle.platform.machine = lambda: 'riscv64'", "has no code for device local-sync: it holds "),
        ("sys.argv[sys.argv.index('--device') + 1] = 'local-sync://7'", "there is no device 'local-sync://7' here"),
    ],
    ids=["bundle", "release", "machine", "device"],
)
def test_it_is_refused_with_the_worker(
    statement: str, said: str, parts_bundle: Path, other_bundle: Path, data: Path, tmp_path: Path
) -> None:
    statement = statement.replace("OTHER", repr(str(other_bundle)))
    run = ("run", parts_bundle, "--data", data, "--device", "local-sync", "-o", tmp_path / "run")
    words, environment = launched(2, ["-c", MAIN, statement, *map(str, run)])
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode not in (0, None)
    (line,) = [line for line in done.stderr.replace("\0", "").splitlines() if line.startswith("sonew")]
    assert line.startswith("sonew: worker 1 ")
    assert said in line
    assert not (tmp_path / "run").exists()


def test_a_gpu_is_chosen_by_the_number_of_the_worker_on_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def listed() -> list[DeviceInfo]:
        kinds = {"local-task": "local", "cuda": "cuda", "cuda://1": "cuda", "vulkan": "vulkan"}
        return [DeviceInfo(name=name, driver=driver, description="") for name, driver in kinds.items()]

    monkeypatch.setattr(runtime, "list_devices", listed)
    assert [device_of("cuda", worker) for worker in range(3)] == ["cuda", "cuda://1", "cuda://2"]
    assert [device_of("local-task", worker) for worker in range(2)] == ["local-task"] * 2
    assert [device_of("cuda://0", worker) for worker in range(2)] == ["cuda://0"] * 2
    assert device_of(None, 1) is None
