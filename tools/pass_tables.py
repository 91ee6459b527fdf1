"""The tables and descriptions of docs/internals/passes.md, from the records of passes, policies and targets."""

from __future__ import annotations

from collections.abc import Iterable

from sonew_compiled import passes
from sonew_compiled.lowering.targets import resolve_target, target_names


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "\n".join([_row(*head), _row(*["---"] * len(head)).replace(" ", ""), *(_row(*each) for each in rows)])


def pass_table(room: str) -> str:
    """The passes of a room with their summaries, and their options with defaults."""
    rows = (
        (
            f"[`{each.name}`](../../passes/{room}/{each.name.replace('-', '_')}.py)",
            each.summary,
            ", ".join(f"`{option.name}={option.default_text}`" for option in each.options),
        )
        for each in passes.ROOMS[room]
    )
    return _table(("pass", "what it does", "options"), rows)


def policy_table() -> str:
    """The passes of each precision policy, in order."""
    return _table(
        ("policy", "its passes"), ((f"`{each.name}`", _names(each.passes)) for each in passes.POLICIES.values())
    )


def target_table() -> str:
    """The passes of each family of targets, in order, without options, which differ between processors."""
    lists: dict[str, tuple[str, ...]] = {}
    for name in target_names():
        target = resolve_target(name)
        chosen = tuple(each.partition(":")[0] for each in target.passes)
        assert lists.setdefault(target.family, chosen) == chosen, f"{name} has other passes than {target.family}"
    families: dict[tuple[str, ...], list[str]] = {}
    for family, chosen in lists.items():
        families.setdefault(chosen, []).append(f"`{family}`")
    return _table(("targets", "their passes"), ((", ".join(each), _names(chosen)) for chosen, each in families.items()))


def _names(chosen: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in chosen) or "none"


def reference() -> str:
    """The description of each pass and the meanings of its options."""
    return "\n\n".join(_section(each) for room in passes.ROOMS.values() for each in room)


def _section(each: passes.Pass) -> str:
    options = "\n".join(f"- `{option.name}` ({option.default_text}): {option.help}." for option in each.options)
    return "\n\n".join(part for part in (f"### {each.name}", each.description.strip(), options) if part)
