"""The records of the passes agree with their files and functions, and with the documents."""

import inspect
import re
import sys
from pathlib import Path

import generated
import pytest

from sonew_compiled import passes

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/internals/passes.md"
LONGEST_CELL = 120

each_pass = pytest.mark.parametrize("each", passes.REGISTRY.values(), ids=passes.REGISTRY)


@pytest.fixture(scope="module")
def document() -> str:
    """The document as the site has it."""
    return generated.filled(DOCUMENT.read_text(encoding="utf-8"))


@each_pass
def test_the_document_is_what_the_records_say(each: passes.Pass, document: str) -> None:
    rows = [line for line in document.splitlines() if line.startswith(f"| [`{each.name}`]")]
    assert len(rows) == 1
    assert f"| {each.summary} |" in rows[0]
    assert all(f"`{option.name}={option.default_text}`" in rows[0] for option in each.options)
    assert f"### {each.name}\n\n{each.description.strip()}" in document


def test_no_cell_of_a_table_is_longer_than_a_sentence(document: str) -> None:
    for line in document.splitlines():
        if line.startswith("| "):
            for cell in line.strip("| ").split(" | "):
                assert not re.search(r"[.;] ", cell), cell
                assert len(cell) <= LONGEST_CELL or cell.count("`, `"), cell


@each_pass
def test_a_pass_is_named_after_its_file_and_has_its_docstring(each: passes.Pass) -> None:
    module = sys.modules[each.run.__module__]
    assert module.__name__.rpartition(".")[2] == each.run.__name__ == each.name.replace("-", "_")
    assert each.description == module.__doc__
    assert module.PASS is each
    assert each.summary[0].islower()
    assert each.summary[-1] != "."


@each_pass
def test_options_are_the_keyword_arguments_of_the_function(each: passes.Pass) -> None:
    _, *parameters = inspect.signature(each.run).parameters.values()
    assert [option.name for option in each.options] == [parameter.name for parameter in parameters]
    assert all(parameter.default is parameter.empty for parameter in parameters), "the record has the defaults"
    for option in each.options:
        assert option.read(option.default_text) == option.default
        assert option.help


@each_pass
def test_a_pass_has_a_before_and_after(each: passes.Pass) -> None:
    runs = [line for path in (ROOT / "tests" / "lit").glob("*.mlir") for line in path.read_text("utf-8").splitlines()]
    assert any(line.startswith("// RUN:") and re.search(rf"--pass '?{each.name}\b(?!-)", line) for line in runs)


def test_every_pass_of_a_file_is_registered() -> None:
    files = {path.stem for room in passes.ROOMS for path in (ROOT / "passes" / room).glob("*.py")}
    assert files - {"__init__", "policies"} == {name.replace("-", "_") for name in passes.REGISTRY}


def test_an_option_is_set_and_others_keep_their_defaults() -> None:
    seen: list[dict[str, object]] = []
    options = (
        passes.Option(name="size", default=3, help="how many", read=int),
        passes.Option(name="word", default="x", help="which", read=str),
    )
    each = passes.Pass(
        name="look", summary="look", description="", run=lambda _, **given: seen.append(given), options=options
    )
    module = passes.parse("module {}")
    each(module)
    each.bind(size=5)(module)
    each.bind(size=5).bind(word="y")(module)
    assert seen == [{"size": 3, "word": "x"}, {"size": 5, "word": "x"}, {"size": 5, "word": "y"}]
