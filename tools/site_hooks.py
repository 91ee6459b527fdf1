"""Hooks of MkDocs: the package as it is installed, and pages whose sources lie outside `docs/`.

GitHub and the site show the same files. So a link is written as GitHub needs it, relative to the file, and translated
here if it leads out of `docs/`: to the page of that file, to the description of that pass, or to its name alone.
"""

from __future__ import annotations

import importlib
import posixpath
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "CONTRIBUTING.md": "internals/contributing.md",
    "CHANGELOG.md": "internals/changelog.md",
    "passes/rows/README.md": "internals/rows.md",
    "tests/campaigns/README.md": "internals/campaigns.md",
}
"""The page of each file outside `docs/`."""

_PASS = re.compile(r"passes/(?:shared|precision|target)/(\w+)\.py")
_SOURCES = {page: source for source, page in ELSEWHERE.items()}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"(!\[[^\]]*\]\()([^)\s]+)\)")


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts `runtime/` and `passes/` into the package, where the installed package has them."""
    package = ROOT / "build/reference/sonew_compiled"
    package.mkdir(parents=True, exist_ok=True)
    for old in package.iterdir():
        old.unlink()
    for path in (*(ROOT / "sonew_compiled").iterdir(), ROOT / "runtime", ROOT / "passes"):
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            (package / path.name).symlink_to(path)
    _complete(config.nav or [])
    return config


def _complete(nav: list[Any]) -> None:
    """Puts pages that `mkdocs.yml` does not list at the end of their folder's section, under their own titles."""
    listed = {
        path for section in nav for pages in section.values() for each in _as_list(pages) for path in each.values()
    }
    for section in nav:
        for pages in section.values():
            folders = {path.partition("/")[0] for each in _as_list(pages) for path in each.values() if "/" in path}
            if len(folders) == 1:
                found = sorted((ROOT / "docs" / folders.pop()).glob("*.md"))
                paths = [str(path.relative_to(ROOT / "docs")) for path in found]
                pages.extend(path for path in paths if path not in listed)


def _as_list(pages: Any) -> list[dict[str, str]]:
    return pages if isinstance(pages, list) else [{"": pages}]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages whose sources lie elsewhere, and the schemas."""
    for name, text in _tool("schemas").schemas().items():
        files.append(File.generated(config, f"reference/schemas/{name}", content=text))
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def _tool(name: str) -> ModuleType:
    """A module of `tools/`."""
    if str(ROOT / "tools") not in sys.path:
        sys.path.insert(0, str(ROOT / "tools"))
    return importlib.import_module(name)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adds what is made from records, and translates links."""
    uri = page.file.src_uri
    markdown = _tool("generated").filled(markdown)
    return translate(markdown, source=_SOURCES.get(uri, f"docs/{uri}"), page=uri)


def translate(markdown: str, *, source: str, page: str) -> str:
    """The text with links that lead to pages, for a page whose text comes from `source`."""

    def moved(target: str) -> str | None:
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return target
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if described := _PASS.fullmatch(found):
            found, hash_, anchor = "docs/internals/passes.md", "#", described[1].replace("_", "-")
        to = ELSEWHERE.get(found, found.removeprefix("docs/") if found.startswith("docs/") else None)
        return None if to is None else posixpath.relpath(to, posixpath.dirname(page) or ".") + hash_ + anchor

    def link(match: re.Match[str]) -> str:
        text, to = match[1], moved(match[2])
        return text if to is None else f"[{text}]({to})"

    def image(match: re.Match[str]) -> str:
        return f"{match[1]}{moved(match[2])})"

    def translated(text: str) -> str:
        return _IMAGE.sub(image, _LINK.sub(link, text))

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else translated(part) for part in parts)
