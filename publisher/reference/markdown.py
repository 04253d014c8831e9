"""Markdown of generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Columns that are empty in every line are left out."""
    filled = [list(line) for line in lines]
    kept = [column for column in range(len(head)) if any(line[column] for line in filled)]
    written = [[line[column] for column in kept] for line in (head, *filled)]
    written.insert(1, ["---"] * len(kept))
    return "\n".join(f"| {' | '.join(line)} |" for line in written)


def page(title: str, *parts: str) -> str:
    note = "<!-- Made from the code by `make docs`; changes belong there. -->"
    return "\n\n".join([f"# {title}", note, *(part.strip() for part in parts)]) + "\n"
