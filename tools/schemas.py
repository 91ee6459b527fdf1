"""Writes the formats of files as JSON Schema, from the checks by which they are read.

    python tools/schemas.py --output schemas

The fields' descriptions are those of the docstrings, and of the format of rows. A schema says less than its check:
that names of tensors are distinct, for one. The site has the same files.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sonew_compiled.bench import _row_format
from sonew_compiled.runtime import _manifest_schema, manifest, metrics
from sonew_compiled.runtime.schema import Check, schema_of

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def attributes(described: type) -> dict[str, str]:
    """The meanings of a class's attributes, from its docstring."""
    listed = inspect.getdoc(described).partition("Attributes:\n")[2].partition("\n\n")[0]  # type: ignore[union-attr]
    pairs = re.findall(r"^  (\w+): (.*(?:\n {3,}.*)*)", listed, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in pairs}


FILES: Mapping[str, tuple[Check, str, Mapping[str, str]]] = {
    "manifest.json": (_manifest_schema.MANIFEST, "The manifest of a bundle", attributes(manifest.Manifest)),
    "metrics.json": (metrics.LINE, "A line of metrics.jsonl, of a run", attributes(metrics.EpochMetrics)),
    "row.json": (_row_format.ROW, "A line of rows.jsonl, of a benchmark", _row_format.MEANINGS),
}
"""For each file its check, a title, and the meanings of its fields."""


def schemas() -> dict[str, str]:
    """The content of each file."""
    return {name: json.dumps(_document(*each), indent=2) + "\n" for name, each in FILES.items()}


def _document(check: Check, title: str, meanings: Mapping[str, str]) -> dict[str, Any]:
    schema = schema_of(check)
    properties = {
        name: {**each, **({"description": meanings[name]} if name in meanings else {})}
        for name, each in schema["properties"].items()
    }
    return {"$schema": _DRAFT, "title": title, **schema, "properties": properties}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (output / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
