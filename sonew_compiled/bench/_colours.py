"""Colours for any number of lines, all different, that are seen on white and on black."""

from __future__ import annotations

import math

# Lightness and chroma of OKLCH; every other line is lighter, so that neighbours differ in more than the hue.
_LIGHTNESS = (0.56, 0.74)
_CHROMA = 0.14
_FIRST_HUE = 0.7


def colours(count: int) -> list[str]:
    """`count` different colours as `#rrggbb`, with hues all around the circle."""
    return [_hex(_LIGHTNESS[index % 2], _FIRST_HUE + 2 * math.pi * index / max(count, 1)) for index in range(count)]


def _hex(lightness: float, hue: float) -> str:
    """A colour of OKLCH (Ottosson, 2020), cut to what a screen can show."""
    a, b = _CHROMA * math.cos(hue), _CHROMA * math.sin(hue)
    long, middle, short = (
        (lightness + x * a + y * b) ** 3
        for x, y in ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))
    )
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(max(value, 0.0), 1.0))):02x}" for value in linear)


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
