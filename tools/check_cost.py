"""Measures the cost of the check before a bundle is written: `sonew compile` without and with it, in turn.

    python tools/check_cost.py --pairs 3
    python tools/check_cost.py -- --optimizer adam --precision bf16

It prints a line for each pair, and the medians: the seconds that passed, and those of the processor in all processes.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time

import click

_SONEW = (sys.executable, "-c", "from sonew_compiled.cli import main; main()")


@click.command(help=__doc__.replace("\n\n    ", "\n\n\b\n    "))
@click.option("--pairs", type=click.IntRange(min=1), default=3, show_default=True, help="Compilations of each kind.")
@click.argument("options", nargs=-1)
def measure(pairs: int, options: tuple[str, ...]) -> None:
    """Measures the pairs and prints them; `options` are those of `sonew compile`."""
    runs = []
    for pair in range(pairs):
        without, checked = (_compile([*options, flag]) for flag in ("--no-check", "--check"))
        runs.append((*without, *checked))
        click.echo(f"pair {pair + 1}: {_line(*runs[-1])}")
    click.echo(f"median: {_line(*map(statistics.median, zip(*runs, strict=True)))}")


def _compile(options: list[str]) -> tuple[float, float]:
    """The time and the processor time of one compilation, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.monotonic(), _processor_time()
        subprocess.run([*_SONEW, "compile", "-o", f"{folder}/bundle", *options], check=True, capture_output=True)
        return time.monotonic() - start, _processor_time() - before


def _processor_time() -> float:
    """The processor time of all processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _line(time_without: float, processor_without: float, time_checked: float, processor_checked: float) -> str:
    return (
        f"{time_checked:.1f} s after {time_without:.1f} s ({time_checked / time_without - 1:+.0%}), "
        f"of the processor {processor_checked:.1f} s after {processor_without:.1f} s "
        f"({processor_checked / processor_without - 1:+.0%})"
    )


if __name__ == "__main__":
    measure()
