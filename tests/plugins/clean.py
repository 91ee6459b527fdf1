"""An environment as a stranger has it: the wheel, and what the wheel and its extras require, nothing else."""

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

# Runs the programs that come as lines of JSON, in one namespace, and answers with what they print.
_SESSION = """
import contextlib, io, json, sys
names = {"__name__": "__page__"}
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(json.loads(line), names)
    print(json.dumps(printed.getvalue()), flush=True)
"""


class Environment:
    """A virtual environment that links the packages which the tests' own environment has, in place of a download.

    Attributes:
      programs: the folder of `python` and `sonew`.
    """

    def __init__(self, path: Path, wheel: Path) -> None:
        venv.create(path, symlinks=True)
        self.programs = path / "bin"
        self._site = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(path), "platbase": str(path)}))
        self._linked: set[str] = set()
        words = ["--python", self.programs / "python", "install", "--quiet", "--no-index", "--no-deps", wheel]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        (found,) = importlib.metadata.distributions(name="sonew-compiled", path=[str(self._site)])
        self._own = found
        self.install()

    def install(self, *extras: str) -> None:
        """Links what the wheel requires, with extras."""
        self._link_required(self._own, extras)

    def _link_required(self, distribution: importlib.metadata.Distribution, extras: tuple[str, ...]) -> None:
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            key = str((needed.name, sorted(needed.extras)))
            if key not in self._linked:
                self._linked.add(key)
                found = importlib.metadata.distribution(needed.name)
                for parts in set(_tops(found)):
                    target = self._site.joinpath(*parts)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if not target.exists():
                        target.symlink_to(Path(str(found.locate_file(Path(*parts)))))
                self._link_required(found, tuple(needed.extras))


def _tops(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, ...]]:
    """The files and folders of a distribution that no other shares: `iree/runtime`, as `iree` has the compiler too."""
    for file in distribution.files or ():
        depth = 1
        while depth < len(file.parts) and not _is_whole(Path(str(distribution.locate_file(Path(*file.parts[:depth]))))):
            depth += 1
        if file.parts[0] != "..":
            yield file.parts[:depth]


def _is_whole(path: Path) -> bool:
    return path.suffix in (".dist-info", ".libs") or (path / "__init__.py").exists()


class Session:
    """A Python of an environment, which keeps its names from one program to the next."""

    def __init__(self, python: Path, folder: Path) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._process = subprocess.Popen([python, "-c", _SESSION], **pipes, text=True, cwd=folder)

    def run(self, program: str) -> str:
        """What a program prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(program), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"{program}\n{self._process.communicate()[1]}"
        printed: str = json.loads(answer)
        return printed

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
