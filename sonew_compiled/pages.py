"""The pages of the documentation that messages name: by title, since who has a wheel has no folder `docs`."""

from __future__ import annotations

TITLES = {
    "concepts/security.md": "What to trust",
    "reference/benchmarks.md": "Benchmarks",
    "reference/optimizers.md": "Optimizers",
}
"""The title of each page by its path in `docs`."""


def page(path: str) -> str:
    """A page as a message names it, by its path in `docs`."""
    return f'the page "{TITLES[path]}" of the documentation'
