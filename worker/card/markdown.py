"""Pieces of Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    numbers = "|".join(["---", *["---:"] * (len(heads) - 1)])
    return "\n".join([_row(heads), f"|{numbers}|", *map(_row, rows)])


def code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
