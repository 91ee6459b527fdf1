"""Compares random small programs, compiled as bundles, with JAX, and prints those that differ.

    python tools/fuzz_models.py --programs 3000 --seed 100000
    python tools/fuzz_models.py --only 100017        # one program, with its jaxpr

Each program is made from one seed; docs/concepts/check.md describes them. A module holds `--together` programs, and is
compiled and run in a process of its own, so that a crash or an endless loop is a find as well. If a module differs, its
programs are tried one by one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

_PATIENCE = 1200


def _in_process(seeds: Sequence[int], options: Sequence[str]) -> str:
    """The finds of these seeds in a process of their own, as text; empty if there are none."""
    command = [sys.executable, __file__, *options, "--only", *map(str, seeds)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"programs {', '.join(map(str, seeds))}: not done after {_PATIENCE} s\n"
    if process.returncode == 0:
        return ""
    if process.returncode == 1 and process.stdout:
        return process.stdout
    if len(seeds) > 1:
        return "".join(_in_process([seed], options) for seed in seeds) or f"programs {seeds}: {process.stderr[-300:]}\n"
    return f"program {seeds[0]}: ended with {process.returncode}: {process.stderr[-300:]}\n"


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first seed; the others follow")
    parser.add_argument("--size", type=int, default=6, help="the most instructions of a program")
    parser.add_argument(
        "--draws", type=int, default=1, help="how many to draw for each, of which the shortest is taken"
    )
    parser.add_argument("--together", type=int, default=12, help="the number of programs in a module")
    parser.add_argument(
        "--devices", default="local-task,local-sync,vmvx", help="the devices to run on, joined by commas"
    )
    parser.add_argument("--only", type=int, nargs="+", metavar="SEED", help="run only these programs, in this process")
    options = parser.parse_args()
    if options.only:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        from agreement.fuzz import finds, report

        found = finds(options.only, size=options.size, draws=options.draws, devices=options.devices.split(","))
        text = report(found, size=options.size, draws=options.draws)
        print(text, end="\n" if text else "")
        return 1 if text else 0
    count, start = 0, time.monotonic()
    for first in range(options.seed, options.seed + options.programs, options.together):
        seeds = range(first, min(first + options.together, options.seed + options.programs))
        settings = ["--devices", options.devices, "--size", str(options.size), "--draws", str(options.draws)]
        if text := _in_process(seeds, settings):
            count += sum(line.startswith("program") for line in text.splitlines())
            print(text, flush=True)
        done = seeds[-1] + 1 - options.seed
        print(f"{done} programs in {time.monotonic() - start:.0f} s, {count} finds", file=sys.stderr, flush=True)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
