"""matplotlib for pictures in files, in any environment and for curves of any name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sonew_compiled.errors import on_one_line
from sonew_compiled.runtime.tensorfile import write_atomically


def pyplot() -> Any:
    """`matplotlib.pyplot`, set up to draw only to files.

    The environment of a notebook may name a backend that another process does not have. matplotlib then refuses to be
    imported.
    """
    os.environ["MPLBACKEND"] = "agg"
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    return pyplot


def legend_text(name: str) -> str:
    """The name escaped for a legend: matplotlib must not read dollars as mathematics or hide names with a `_`.

    Letters that the font lacks are escaped as Python does.
    """
    from matplotlib import font_manager

    has = font_manager.get_font(font_manager.findfont(font_manager.FontProperties())).get_charmap()
    shown = "".join(letter if ord(letter) in has else ascii(letter)[1:-1] for letter in on_one_line(name))
    text = shown.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path if several paths share the last part."""
    names = [path.name or str(path) for path in paths]
    return [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]


def save(figure: Any, path: Path) -> None:
    """Writes a figure atomically.

    Raises:
      SonewError: the file cannot be written.
    """
    import io

    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    write_atomically(path, [content.getvalue()])
