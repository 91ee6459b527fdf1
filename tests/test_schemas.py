"""The formats of files as JSON Schema: what is written fits, and what the readers refuse does not."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from plugins.bench_rows import row
from schemas import FILES, schemas

from sonew_compiled.runtime.schema import Unfit

ROOT = Path(__file__).parent.parent
SCHEMAS = {name: json.loads(text) for name, text in schemas().items()}


def examples(name: str) -> list[Any]:
    """Values as the commands wrote them."""
    if name == "manifest.json":
        return [json.loads((ROOT / "tests/runtime/fixtures/format-1.bundle/manifest.json").read_text("utf-8"))]
    file = {"metrics.json": "run-tridiag-100-metrics.jsonl", "row.json": "paper-100.jsonl"}[name]
    lines = (ROOT / "docs/results" / file).read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines[:3]]
    return [*found, row()] if name == "row.json" else found


def is_fit(name: str, value: Any) -> bool:
    """Whether the reader of the file accepts the value."""
    try:
        FILES[name][0](value, "the example")
    except Unfit:
        return False
    return True


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Any:
    return json.loads((tiny_bundle / "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_says_what_it_is(name: str) -> None:
    fields = SCHEMAS[name]["properties"]
    assert [field for field, schema in fields.items() if not schema.get("description")] == []
    assert len({schema["description"] for schema in fields.values()}) == len(fields)


def test_what_is_written_fits(manifest: Any) -> None:
    jsonschema.validate(manifest, SCHEMAS["manifest.json"])
    for name in ("metrics.json", "row.json"):
        for value in examples(name):
            assert is_fit(name, value)
            jsonschema.validate(value, SCHEMAS[name])


def damaged(value: Any) -> list[Any]:
    """The object without each of its fields in turn, and with a value of another kind in each."""
    found = []
    for key in value:
        for other in (None, -1, 1.5, "", "x" * 20_000, [], {}, True):
            copied = copy.deepcopy(value)
            copied[key] = other
            found.append(copied)
        found.append({name: each for name, each in value.items() if name != key})
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_the_schema_refuses_the_reader_refuses(name: str, manifest: Any) -> None:
    """And of these damages, whose kinds and limits JSON Schema can say, the other way round."""
    refused = 0
    for value in damaged(manifest if name == "manifest.json" else examples(name)[0]):
        fits = jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(value)
        assert fits == is_fit(name, value), value
        refused += not fits
    assert refused > 20


def test_the_tool_writes_them_with_their_meanings(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools/schemas.py", "--output", tmp_path / "out"], check=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(SCHEMAS)
    written = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert written == SCHEMAS["manifest.json"]
    described = {name for name, each in written["properties"].items() if each.get("description")}
    assert described == set(written["properties"])
