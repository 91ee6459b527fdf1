"""The code in documents: blocks of a page in order, and whether a command line is one that there is.

A block of `sh` is run by a shell, one of `python` in this process, all of a page in one folder and one namespace. A
title makes a file of a block. A block of `text` after another is what it prints, figures apart. A comment before a
block gives variables that make its commands short, `<!-- run with: NAME=VALUE ... -->`, or says why it is not run,
`<!-- not run: REASON -->`.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from sonew_compiled.cli import _main

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "passes").rglob("*.md")),
]
LANGUAGES = ("sh", "python", "text", "mlir", "json", "toml")

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: `title` is the file that it makes, `variables` with what it is run, `not_run` why it is not."""

    language: str
    title: str
    variables: Mapping[str, str]
    not_run: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(page):
        kind, _, mark = (match["mark"] or "").partition(": ")
        found.append(
            Block(
                language=match["language"],
                title=match["title"] or "",
                variables=dict(word.split("=", 1) for word in mark.split()) if kind == "run with" else {},
                not_run=mark if kind == "not run" else "",
                text=match["text"],
            )
        )
    return found


def is_run(block: Block) -> bool:
    """Whether a block is a command or a program that the tests run."""
    return block.language in ("sh", "python") and not block.not_run and not block.title


def _walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _walk(inner, (*words, name))


COMMANDS = dict(_walk(_main.sonew))


def find(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The command at the beginning of the words, and the other words."""
    for length in range(len(words), -1, -1):
        if tuple(words[:length]) in COMMANDS:
            return tuple(words[:length]), words[length:]
    raise AssertionError(words)


def parse(line: str) -> None:
    """Parses a whole command line `sonew ...` as if it were run."""
    words = shlex.split(re.split(r"\s{2,}|[>|;]|\s#", line)[0], comments=True)
    assert words.pop(0) == "sonew"
    name, arguments = find(words)
    command = COMMANDS[name]
    if isinstance(command, click.Group) and not command.invoke_without_command:
        assert arguments
        assert set(arguments) <= {"--help", "--version"}, line
    else:
        # A command keeps the names of its help option, `-h` among them, from the first context that it sees.
        whole = click.Context(_main.sonew, info_name="sonew", **_main.sonew.context_settings)
        command.make_context(" ".join(("sonew", *name)), arguments, parent=whole)


def mention(line: str) -> None:
    """Checks an incomplete command line, such as `sonew compile --target NAME`."""
    name, rest = find([word for word in line.split()[1:] if word != "BUNDLE"])
    command = COMMANDS[name]
    if isinstance(command, click.Group):
        assert not rest or rest[0].startswith("-"), f"there is no command `{line}`"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        if re.fullmatch(r"-[-\w]+", word):
            assert word in {*known, "--help", "-h"}, f"`{line}`: there is no {word}"


def lines_of(block: str) -> list[str]:
    """The command lines of a block of `sh`, without comments and prompts."""
    joined = block.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line.removeprefix("$ ")).strip() for line in joined.splitlines())
    return [line for line in lines if line]


# Programs that are not ours, and are not looked into.
_OTHERS = {"cat", "cd", "cmp", "cp", "jq", "ls", "mkdocs", "openssl", "scp", "ssh", "."}
_EXTRAS = re.compile(r"\[([a-z,]+)\]")


def check_line(line: str) -> None:
    """Checks that a command line names programs, options, extras and files that there are.

    Raises:
      AssertionError: it does not, or the program is not known here.
    """
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, rest = words[0], words[1:]
    if "sonew" in words and program in ("sonew", "mpirun", "srun"):
        parse("sonew" + line.partition("sonew")[2])
    elif program == "make":
        recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all("=" in goal or re.search(rf"^{goal}:", recipes, re.MULTILINE) for goal in rest), line
    elif program == "pip" or rest[:2] == ["-m", "pip"]:
        _check_install(line)
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        assert rest[1] in ("build", "mkdocs", "pip", "venv"), line
    elif program in ("python", "python3"):
        _check_tool(rest, line)
    elif program in ("lit", "pytest"):
        assert all((ROOT / each).exists() for each in rest if not each.startswith("-")), line
    else:
        assert program in _OTHERS or program.startswith(("./", "env/", ".venv/")), f"{program} is not known: {line}"


def _check_install(line: str) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extras in _EXTRAS.findall(line):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"there is no extra {extra}: {line}"


def _check_tool(words: list[str], line: str) -> None:
    """A program of this repository; its options stand in its text."""
    if words[0] == "-c" or not words[0].startswith(("tools/", "docs/")):
        return
    text = (ROOT / words[0]).read_text(encoding="utf-8")
    for word in words[1:]:
        if word.startswith("--") and word != "--help":
            assert f'"{word.partition("=")[0]}"' in text, f"there is no {word}: {line}"


_FIGURE = re.compile(r"\d[\d,.]*(e[-+]?\d+)?")


def plain(text: str) -> str:
    """A line of output without figures and without the width of its columns."""
    return " ".join(_FIGURE.sub("#", text).split())


def missing_output(expected: str, output: str) -> list[str]:
    """The lines of a block of `text` that the output lacks; `...` stands for anything."""
    lines = [plain(line) for line in output.splitlines()]
    wanted = [plain(line) for line in expected.splitlines() if line.strip() not in ("", "...")]
    return [
        each
        for each in wanted
        if not any(re.fullmatch(".*".join(map(re.escape, re.split(r"\s?\.\.\.\s?", each))), line) for line in lines)
    ]
