"""matplotlib, for pictures in files: whatever the user's environment, and whatever a curve is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.runtime.tensorfile import write_atomically


def pyplot() -> Any:
    """`matplotlib.pyplot`, drawing to files alone.

    The environment of a notebook names a backend that a process of its own may not have; matplotlib refuses to be
    imported then.
    """
    os.environ["MPLBACKEND"] = "agg"
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    return pyplot


def legend_text(name: str) -> str:
    """The name as matplotlib writes it in a legend: no mathematics between dollars, and not left out for a `_`."""
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path of those whose last part is another's too."""
    names = [path.name or str(path) for path in paths]
    return [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]


def save(figure: Any, path: Path) -> None:
    """Writes a figure so that the file is the whole picture, or what it was before.

    Raises:
      SonewError: it cannot be written.
    """
    import io

    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    write_atomically(path, [content.getvalue()])
