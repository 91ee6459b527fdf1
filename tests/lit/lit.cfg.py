"""Before/after tests of the passes: `lit tests/lit`, in any environment where the project is installed."""

import sys
import tempfile
from pathlib import Path

import lit.formats

here = Path(__file__).resolve().parent

config.name = "sonew"  # noqa: F821 - lit defines `config`
config.test_format = lit.formats.ShTest(execute_external=False)  # noqa: F821
config.suffixes = [".mlir"]  # noqa: F821
config.test_source_root = str(here)  # noqa: F821
config.test_exec_root = str(Path(tempfile.gettempdir()) / "sonew-lit")  # noqa: F821
config.substitutions += [  # noqa: F821
    ("%sonew-opt", f'"{sys.executable}" "{here.parents[1] / "tools" / "sonew_opt.py"}"'),
    ("FileCheck", f'"{Path(sys.executable).parent / "filecheck"}"'),
]
