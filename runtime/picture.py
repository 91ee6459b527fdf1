"""Pictures of images and their reconstructions."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sonew_compiled.errors import UsageError
from sonew_compiled.runtime.tensorfile import write_atomically

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS = 10
_GAP = 3  # pixels
_SMALLEST = 84  # pixels of an image's side in the picture
_TEXT = 16  # pixels of the height of a line


def reconstruction_grid(
    inputs: np.ndarray, outputs: np.ndarray, path: str | Path, *, columns: int = _COLUMNS, title: str = ""
) -> Path:
    """Writes a PNG of rows of inputs, each over the row of their reconstructions.

    Args:
      inputs: n square grey images with values in [0, 1]: (n, side²), (n, side, side) or (n, side, side, 1), of any
        floating-point dtype; values outside are cut off.
      outputs: as many, of the same size.
      path: the picture; its directory is made.
      columns: the images in a row.
      title: a line above the images, and words beside each row that tell inputs from outputs; without it there are
        the images alone.

    Returns:
      The path of the picture.

    Raises:
      UsageError: the images are not square, or the outputs are not as many as the inputs.
      SonewError: the file cannot be written.
    """
    from PIL import Image

    path = Path(path)
    tops, bottoms = _squares(inputs, "inputs"), _squares(outputs, "outputs")
    if tops.shape != bottoms.shape or not len(tops):
        raise UsageError(
            f"{len(bottoms)} outputs of {bottoms.shape[1:]} do not pair with {len(tops)} inputs of {tops.shape[1:]}: "
            "give as many of each, at least one"
        )
    columns = min(columns, len(tops))
    rows = math.ceil(len(tops) / columns)
    scale = max(1, math.ceil(_SMALLEST / tops.shape[1]))
    side = tops.shape[1] * scale
    # The gap between pairs of rows is wider than the gap within a pair.
    height = rows * (2 * side + 3 * _GAP) + _GAP
    canvas = np.full((height, columns * (side + _GAP) + _GAP), 255, np.uint8)
    for index, (top, bottom) in enumerate(zip(tops, bottoms, strict=True)):
        row, column = divmod(index, columns)
        y = row * (2 * side + 3 * _GAP) + _GAP
        x = column * (side + _GAP) + _GAP
        canvas[y : y + side, x : x + side] = np.kron(top, np.ones((scale, scale), np.uint8))
        canvas[y + side + _GAP : y + 2 * side + _GAP, x : x + side] = np.kron(bottom, np.ones((scale, scale), np.uint8))
    content = io.BytesIO()
    picture = _labelled(canvas, title, rows, side) if title else Image.fromarray(canvas)
    picture.save(content, format="PNG", optimize=True)
    write_atomically(path, [content.getvalue()])
    return path


def _labelled(canvas: np.ndarray, title: str, rows: int, side: int) -> Image.Image:
    """The images of a grid with a title above, and what each row shows on its left."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_TEXT)
    words = ("input", "output")
    left = 2 * _GAP + math.ceil(max(font.getlength(word) for word in words))
    top = 2 * _GAP + 2 * _TEXT
    width = max(canvas.shape[1], math.ceil(font.getlength(title)) + _GAP) + left
    picture = Image.new("L", (width, canvas.shape[0] + top), 255)
    picture.paste(Image.fromarray(canvas), (left, top))
    draw = ImageDraw.Draw(picture)
    draw.text((left + _GAP, top / 2), title, fill=0, font=font, anchor="lm")
    for row in range(rows):
        for place, word in enumerate(words):
            y = top + row * (2 * side + 3 * _GAP) + _GAP + place * (side + _GAP) + side / 2
            draw.text((left - _GAP, y), word, fill=0, font=font, anchor="rm")
    return picture


def _squares(images: np.ndarray, what: str) -> np.ndarray:
    """The images as uint8[n, side, side]."""
    images = np.asarray(images)
    pixels = math.prod(images.shape[1:])
    side = math.isqrt(pixels)
    shapes = {(side * side,), (side, side), (side, side, 1), (1, side, side)}
    if images.ndim < 2 or images.shape[1:] not in shapes:
        raise UsageError(
            f"{what} of shape {images.shape} are not square grey images: give (n, side * side), (n, side, side) or "
            "(n, side, side, 1)"
        )
    values = np.nan_to_num(images.astype(np.float32)).clip(0, 1)
    squares: np.ndarray = np.rint(values * 255).astype(np.uint8).reshape(-1, side, side)
    return squares
