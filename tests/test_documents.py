"""Documents are true: links lead somewhere, command lines parse, code compiles."""

import ast
import re
from pathlib import Path

import pytest
from plugins.documents import COMMANDS, LANGUAGES, PAGES, ROOT, blocks_of, check_line, lines_of, mention, parse

from sonew_compiled.pages import TITLES

DOCUMENTS = PAGES
SOURCES = [
    path for folder in ("sonew_compiled", "passes", "runtime", "tools") for path in (ROOT / folder).rglob("*.py")
]
FILES = ("LICENSE", "CITATION.cff", "Makefile", "constraints.txt", ".ci/run")

# The nodes of Python that have a docstring.
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*NAMES, *FILES])
def test_it_is_there(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").strip()


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = path.parent / target if target else path
        assert found.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{path.name} links to {link}"


@each_document
def test_files_that_are_named_exist(path: Path) -> None:
    """Paths in backticks, such as `tools/sweep.py`; a name in capitals is a placeholder."""
    for name in re.findall(r"`((?:docs|passes|runtime|sonew_compiled|tests|tools)/[\w./-]*)`", path.read_text("utf-8")):
        if not re.search(r"[A-Z]{3}", name):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


@each_document
def test_code_is_in_blocks_that_say_their_language(path: Path) -> None:
    """Those of `sh` and `python` are run or parsed; commands in an indented block would be neither."""
    text = path.read_text(encoding="utf-8")
    fences = re.findall(r"^```(.*)$", text, re.MULTILINE)
    assert {fence.partition(" ")[0] for fence in fences[::2]} <= set(LANGUAGES)
    assert len(blocks_of(text)) == len(fences) / 2, "a fence is not at the beginning of a line, or is not closed"
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^    \$? ?(?:sonew|python|make|pip|mpirun) .*$", outside, re.MULTILINE)


@each_document
def test_command_lines_parse(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for block in blocks_of(text):
        for line in lines_of(block.text) if block.language == "sh" else ():
            check_line(line)
    for line in re.findall(r"`(sonew [^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
        mention(line)


@each_document
def test_python_compiles(path: Path) -> None:
    for block in blocks_of(path.read_text(encoding="utf-8")):
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_examples_in_help_parse(words: tuple[str, ...]) -> None:
    examples = (COMMANDS[words].help or "").partition("Examples:\n")[2].partition("\n\n")[0]
    assert examples
    for line in examples.strip().splitlines():
        parse(line.strip())


def test_make_runs_commands_that_there_are() -> None:
    recipes = re.findall(r"^\t\$\(BIN\)/(sonew .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipes
    for line in recipes:
        parse(line.replace("$(OUT)", "out").replace("$(EPOCHS)", "2"))


def test_messages_mention_commands_that_there_are() -> None:
    mentions = [line for path in SOURCES for line in re.findall(r"`(sonew [a-z][^`\n]*)`", path.read_text("utf-8"))]
    assert len(mentions) > 20
    for line in mentions:
        mention(line)


def test_documents_that_code_mentions_are_there() -> None:
    for path in (*SOURCES, *(ROOT / "tests").rglob("*.py")):
        for name in re.findall(r"\bdocs/[\w./-]+\.(?:md|py|jsonl?)\b", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} mentions {name}"


def strings_of(path: Path) -> list[str]:
    """The strings of a Python file that are no docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    documented = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, DOCUMENTED)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if text not in documented]


def test_messages_name_pages_by_their_titles() -> None:
    for name, title in TITLES.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8").startswith(f"# {title}\n")
    said = [text for path in SOURCES if path.parts[len(ROOT.parts)] != "tools" for text in strings_of(path)]
    shown = said + [command.help or "" for command in COMMANDS.values()]
    assert not [text for text in shown if "docs/" in text], "who has a wheel has no folder docs"
    named = {title for text in shown for title in re.findall(r'the page "([^"]+)" of the documentation', text, re.I)}
    assert named <= set(TITLES.values())


def test_the_readme_begins_with_what_a_user_does_first() -> None:
    commands = [
        line.split("#")[0].strip()
        for block in blocks(DOCUMENTS[0].read_text("utf-8"), "sh")
        for line in block.splitlines()
    ]
    assert commands[:2] == ["make run", "make test"]
