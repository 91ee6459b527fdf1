"""Measures `make run` in a new clone, and writes its figures where users read them: the Makefile and the README.

    python tools/first_run.py --write               # the 60 epochs of `make run`
    python tools/first_run.py --epochs 2 --write

The clone has what is committed, and a new environment. The row goes to `make-run.json` among the other results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from sonew_compiled.runtime import read_metrics

ROOT = Path(__file__).parent.parent
ROW = ROOT / "docs/results" / "make-run.json"
Row = dict[str, Any]

# The files with the sentences, each with the pattern of the place and the form of the sentence.
PLACES = {
    ROOT / "Makefile": (r"(?m)^(RUN_TAKES :=).*$", "makefile"),
    ROOT / "README.md": (r"(?s)(<!-- make run -->\n).*?(?=\n<!-- by tools/first_run.py -->)", "readme"),
}


def measured(epochs: int) -> Row:
    """Clones the repository, makes the environment and runs; the clone is removed."""
    with tempfile.TemporaryDirectory(prefix="sonew-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

        def made(*words: str) -> tuple[str, float]:
            started = time.perf_counter()
            ended = subprocess.run(
                ["make", *words], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            return ended.stdout, time.perf_counter() - started

        installed, install_seconds = made(".venv/.run", "PIP_SAYS=")
        _, run_seconds = made("run", f"EPOCHS={epochs}")
        evaluated = subprocess.run(
            [clone / ".venv/bin/sonew", "eval", "out/bundle", "--checkpoint", "out", "--json", "--quiet"],
            cwd=clone,
            stdout=subprocess.PIPE,
            check=True,
        )
        losses = json.loads(evaluated.stdout)
        rows = [row for row in read_metrics(clone / "out") if "seconds" in row]
        return {
            "epochs": epochs,
            "download_mb": round(downloaded(installed)),
            "install_seconds": round(install_seconds, 1),
            "run_seconds": round(run_seconds, 1),
            "train_seconds": round(rows[-1]["seconds"], 1),
            "train_loss": losses["train_loss"],
            "test_loss": losses["test_loss"],
            "processor": processor(),
            "threads": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        }


def downloaded(said: str) -> float:
    """The megabytes of the packages that pip names, which it takes from the network or from its cache."""
    units = {"kB": 1e-3, "MB": 1.0, "GB": 1e3}
    packages = re.findall(r"(?:Downloading|Using cached) (\S+\.(?:whl|tar\.gz)) \(([\d.]+) ([kMG]B)\)", said)
    return sum(float(size) * units[unit] for _, size, unit in packages)


def processor() -> str:
    """The processor's name."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = re.findall(r"^model name\s*: (.*)$", described, re.MULTILINE)
    return names[0] if names else platform.machine()


def sentences(row: Row | None) -> dict[str, str]:
    """The sentence of each place for a row; empty where nothing has been measured."""
    if row is None:
        return dict.fromkeys(("makefile", "readme"), "")
    an_epoch = row["train_seconds"] / row["epochs"]
    rest = row["run_seconds"] - row["train_seconds"]
    machine = f"{row['threads']} threads of {row['processor']}"
    parts = f"{row['install_seconds']:.0f} s to install, {rest:.0f} s to compile, check and draw"
    takes = f"{parts}, and {an_epoch:.1f} s an epoch, measured on {machine}"
    asked = "make run" if row["epochs"] == 60 else f"make run EPOCHS={row['epochs']}"
    return {
        "makefile": f" It downloads {row['download_mb']} MB the first time. It takes {takes}.",
        "readme": (
            f"The first `make run` downloads {row['download_mb']} MB. It takes {takes}. `{asked}` ends at "
            f"{row['train_loss']:.2f} nats an image on the 9,000 digits it trains on, and at {row['test_loss']:.2f} on "
            "the 1,000 it does not see."
        ),
    }


def last_row() -> Row | None:
    """The row of the last measurement, if there is one."""
    return json.loads(ROW.read_text(encoding="utf-8")) if ROW.exists() else None


def written(path: Path, row: Row | None) -> str:
    """The text of a file with its sentence for a row."""
    pattern, name = PLACES[path]
    text, count = re.subn(pattern, lambda found: found[1] + sentences(row)[name], path.read_text(encoding="utf-8"))
    assert count == 1, f"{path} has {count} places for the sentence"
    return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="write the row, the Makefile and the README")
    asked = parser.parse_args()
    row = measured(asked.epochs)
    print(json.dumps(row, indent=1))
    if asked.write:
        ROW.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
        for path in PLACES:
            path.write_text(written(path, row), encoding="utf-8")


if __name__ == "__main__":
    main()
