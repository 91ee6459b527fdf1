"""The layers of imports, the packages that a device never loads, and the contents of the wheel."""

import ast
import fnmatch
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]

# The folders of the packages of `sonew_compiled`, two of which lie outside it.
PLACES = {"sonew_compiled": ROOT / "sonew_compiled"} | {
    package: ROOT / folder for package, folder in SETUPTOOLS["package-dir"].items() if "." in package
}

# The parts that each part of the project may import besides itself, in the order of docs/internals/architecture.md.
ALLOWED = {
    "errors": (),
    "contract": (),
    "pages": (),
    "mpi_environment": (),
    "setting": ("errors",),
    "presets": ("errors", "setting"),
    "train_settings": ("errors", "pages", "setting"),
    "install": ("errors",),
    "models": ("errors", "install", "presets", "recurrence"),
    "step_settings": ("errors", "setting"),
    "optimizer": ("errors", "contract", "jax_settings", "presets", "step_settings"),
    "backward": (),
    "rules": ("errors",),
    "jax_settings": (),
    "recurrence": ("contract",),
    "model_functions": ("errors", "contract"),
    "requirements": ("errors", "contract", "backward", "recurrence"),
    "rate_in_state": ("errors", "recurrence"),
    "xla": ("runtime.cores",),
    "scaled_loss": ("errors", "xla"),
    "background": (),
    "folder_lock": (),
    "bundle_writer": ("errors", "contract", "folder_lock", "runtime"),
    "check": ("errors", "contract", "background", "jax_settings", "lowering.scratch", "passes", "runtime", "xla"),
    "held": ("errors", "contract", "requirements", "step_settings"),
    "labelled": ("contract", "requirements", "rules"),
    "inference": ("errors", "contract", "background", "bundle_writer", "check", "lowering", "passes", "runtime"),
    "trackers": ("runtime",),
    "weight_trees": ("errors", "contract", "requirements", "runtime"),
    "weights_in_state": (
        *("contract", "held", "jax_settings", "model_functions", "recurrence", "requirements", "training_state"),
    ),
    "host_init": ("errors", "jax_settings", "training_state"),
    "exponential_average": ("errors", "contract", "held", "requirements"),
    "training_state": (
        *("errors", "contract", "backward", "exponential_average", "held", "model_functions", "requirements"),
        "step_settings",
    ),
    "trace": (
        *("errors", "contract", "backward", "exponential_average", "held", "jax_settings", "labelled"),
        *("model_functions", "rate_in_state", "recurrence", "requirements", "scaled_loss", "training_state"),
    ),
    "weights_of_model": ("jax_settings", "model_functions", "models", "training_state", "weight_trees"),
    "micro_batches": ("errors", "contract", "backward", "passes", "trace"),
    "passes": ("errors", "contract"),
    "runtime": ("errors", "contract", "install", "mpi_environment", "pages", "train_settings"),
    "lowering": ("errors", "contract", "folder_lock", "install", "passes", "runtime.manifest", "xla"),
    "figures": ("errors", "runtime"),
    "tpu_program": ("errors", "runtime", "lowering.targets"),
}

# The rooms that each room of `passes/` may import.
ROOMS: dict[str, tuple[str, ...]] = {
    "ir": (),
    "record": ("ir",),
    "rows": ("ir",),
    "shared": ("ir", "record"),
    "precision": ("ir", "record"),
    "target": ("ir", "record", "rows"),
    "registry": ("record", "shared", "precision", "target"),
    "pipeline": ("ir", "record", "precision", "registry"),
}
# These modules put the parts together, and may import all of them.
FREE = ("", "compile", "cli", "bench")

# The modules that the command line and the device import at once.
LIGHT = (
    *("contract", "errors", "install", "mpi_environment", "pages", "setting", "presets", "step_settings"),
    "train_settings",
)

# Modules, beside the commands, that import others of the project only within functions: to start sooner, to measure a
# process that has loaded nothing else, or to do without a package that not everybody has.
LATE = (
    "sonew_compiled",
    "sonew_compiled.bench._row_tasks",
    "sonew_compiled.bench._start",
    "sonew_compiled.runtime.connect",
)

COMPILER = {"jax", "jaxlib", "optax", "iree.compiler"}


def modules() -> Iterator[tuple[str, Path]]:
    """The name and the file of every module of the project."""
    for package, folder in PLACES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            yield ".".join(part for part in parts if part != "__init__"), path


MODULES = dict(modules())


def part_of(module: str) -> str:
    """The part of the project that a module belongs to: `runtime` for `sonew_compiled.runtime.data.load`."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, *, at_once: bool = False) -> set[str]:
    """The names of the modules that a module imports; with `at_once`, without imports in its functions."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            if at_once:
                return
        elif at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: import by the full name"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in MODULES else node.module for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) not in FREE])
def test_imports_follow_the_arrows(module: str) -> None:
    part = part_of(module)
    assert part in ALLOWED, f"{part} is not in ALLOWED or FREE, which say what it may import"
    allowed = (part, *ALLOWED[part])
    for name in imports(module):
        if name.split(".")[0] == "sonew_compiled":
            inner = name.partition(".")[2]
            assert any(f"{inner}.".startswith(f"{each}.") for each in allowed), f"{module} imports {name}"


ROOM_MODULES = [name for name in MODULES if part_of(name) == "passes" and len(name.split(".")) > 2]


@pytest.mark.parametrize("module", ROOM_MODULES)
def test_a_room_imports_only_those_below_it(module: str) -> None:
    room = module.split(".")[2]
    of_passes = {name for name in imports(module) if part_of(name) == "passes"}
    for name in of_passes:
        assert len(name.split(".")) > 2, f"{module} imports what is on top of it"
        other = name.split(".")[2]
        if other == room and room in ("shared", "precision", "target"):
            raise AssertionError(f"{module} imports the pass {name}: what they share belongs in ir")
        assert other in (room, *ROOMS[room]), f"{module} imports {name}"


def test_no_import_is_part_of_a_circle() -> None:
    """In some order of the modules, each imports only earlier ones, even within its functions."""
    graphlib.TopologicalSorter({module: imports(module) & MODULES.keys() for module in MODULES}).prepare()


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) != "cli"])
def test_modules_import_at_their_top(module: str) -> None:
    late = {name for name in imports(module) - imports(module, at_once=True) if name in MODULES}
    assert bool(late) == (module in LATE), f"{module} imports {', '.join(sorted(late))} within a function"


def test_a_module_with_an_underscore_is_its_packages_own() -> None:
    for module in MODULES:
        for name in imports(module) & MODULES.keys():
            parts = name.split(".")
            for index, part in enumerate(parts):
                owner = ".".join(parts[:index])
                assert not part.startswith("_") or f"{module}.".startswith(f"{owner}."), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) != "passes"])
def test_the_folders_of_passes_are_private(module: str) -> None:
    for name in imports(module):
        assert part_of(name) != "passes" or name == "sonew_compiled.passes", f"{module} imports {name}"


def test_no_file_of_passes_is_private() -> None:
    for module in ROOM_MODULES:
        assert "._" not in module


def test_no_file_of_python_is_longer_than_400_lines() -> None:
    folders = ("sonew_compiled", "passes", "runtime", "tests", "tools", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 300
    assert not [path for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 400]


def test_compile_does_not_know_the_command_line() -> None:
    assert not [name for name in imports("sonew_compiled.compile") if part_of(name) == "cli"]


def test_only_the_command_line_knows_the_benchmarks() -> None:
    for module in MODULES:
        if part_of(module) not in ("cli", "bench"):
            assert not [name for name in imports(module) if part_of(name) == "bench"], module
        # `_start` replaces the command line to time its start.
        if part_of(module) == "bench" and not module.endswith("._start"):
            assert not [name for name in imports(module) if part_of(name) == "cli"], module


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if part_of(name) in (*LIGHT, "runtime")],
)
def test_a_device_has_no_compiler(module: str) -> None:
    assert not {name for name in imports(module) for package in COMPILER if f"{name}.".startswith(f"{package}.")}


@pytest.mark.parametrize("module", [name for name in MODULES if part_of(name) == "cli"])
def test_commands_import_what_they_need_when_they_run(module: str) -> None:
    for name in imports(module, at_once=True):
        if name.split(".")[0] == "sonew_compiled":
            # The suites' file imports nothing heavy, so that the command line can list them.
            is_light = part_of(name) in ("cli", *LIGHT) or name == "sonew_compiled.bench.suites"
            assert is_light, f"{module} imports {name} at once"
        else:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "click"}, f"{module} imports {name} at once"


@pytest.mark.parametrize(
    "statement",
    [
        "import sonew_compiled",
        "import sonew_compiled.cli",
        "import sonew_compiled.runtime",
        "import sonew_compiled; dir(sonew_compiled); sonew_compiled.UsageError",
    ],
)
def test_a_fresh_process_loads_no_compiler(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "sonew_compiled" in loaded
    assert not COMPILER & set(loaded)
    if "runtime" not in statement:
        assert not {"numpy", "iree.runtime", "rich"} & set(loaded), "what is not needed is not waited for"


def test_tasks_are_named_by_functions_that_there_are() -> None:
    """`call_apart` takes a task as text, which a type checker does not follow."""
    found = set()
    for module in (name for name in MODULES if part_of(name) == "bench"):
        for task in re.findall(r'"(sonew_compiled\.[\w.]+):(\w+)"', MODULES[module].read_text(encoding="utf-8")):
            found.add(task)
            imported = imports(task[0])
            assert module not in imported, f"{module} calls {task[0]}, which imports it"
    assert len(found) > 10
    for module, function in found:
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert function in [each.name for each in functions], f"there is no {module}:{function}"


@pytest.mark.parametrize("package", ["passes", "runtime"])
def test_no_package_is_loaded_under_a_second_name(package: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode != 0
    assert f"ImportError: import sonew_compiled.{package}, not {package}" in process.stderr


def packages() -> dict[str, Path]:
    return {name: path.parent for name, path in MODULES.items() if path.name == "__init__.py"}


def test_the_wheel_has_every_package() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages())
    for name, path in MODULES.items():
        assert name in packages() or name.rpartition(".")[0] in packages(), f"{path.parent} lacks an __init__.py"


def test_the_wheel_has_every_data_file() -> None:
    patterns = SETUPTOOLS["package-data"]
    for package, folder in packages().items():
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                matches = [pattern for pattern in patterns.get(package, ()) if fnmatch.fnmatch(path.name, pattern)]
                assert matches, f"package-data of {package} lacks {path.name}"
    for package, needed in patterns.items():
        for pattern in needed:
            assert list(packages()[package].glob(pattern)), f"no {pattern} in {package}"


def test_every_dependency_is_pinned_and_explained() -> None:
    optional = PROJECT["project"]["optional-dependencies"]
    required = [*PROJECT["project"]["dependencies"], *(each for extra in optional.values() for each in extra)]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    explained = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for requirement in required:
        name, _, bound = requirement.partition(">=")
        assert bound, f"{requirement} has no lower bound"
        assert name.lower().replace("_", "-") in pinned, f"constraints.txt lacks {name}"
        assert name in explained, f"CONTRIBUTING.md does not say why {name} is needed"
