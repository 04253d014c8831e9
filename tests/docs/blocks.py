"""The pages for people, README.md and docs/*.md: their fenced blocks, and what a comment before a block says of it.

`<!-- not run: WHY -->`     a test cannot: it needs an hour, a GPU, the internet, another machine
`<!-- stays: WHY -->`       a command that runs until it is stopped; the blocks after it need it
`<!-- not a recipe: WHY -->`   JSON that is something else
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: languages of blocks: run, validated, or for the eye
RUN, RECIPES, SHOWN = {"sh", "python"}, {"json", "jsonc"}, {"text", "mermaid", "ini", "nginx"}

_MARKER = re.compile(r"<!-- ([a-z ]+): (.+) -->")
_COMMENT = re.compile(r"(^|\s)//.*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: `line` is that of its fence, `marker` what the comment before it begins with."""

    page: Path
    line: int
    language: str
    text: str
    marker: str = ""
    why: str = ""

    @property
    def place(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name
        return f"{page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.marker != "not run"

    @property
    def saved_as(self) -> str | None:
        """`tour.py`, if its first line is `# tour.py`: such a block is saved, and run by one after it."""
        named = re.match(r"# (\w+\.py)$", self.text.partition("\n")[0])
        return named.group(1) if named and self.language == "python" else None

    def objects(self) -> Iterator[dict[str, Any]]:
        """The JSON objects that stand in it one after the other, without their comments."""
        text, decoder = _COMMENT.sub("", self.text).strip(), json.JSONDecoder()
        while text:
            found, end = decoder.raw_decode(text)
            yield found
            text = text[end:].strip()


def blocks_of(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text().splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        marker = _MARKER.fullmatch(lines[start - 1].strip()) if start else None
        text = "\n".join(lines[start + 1 : number])
        said = marker.groups() if marker else ("", "")
        found.append(Block(page, start + 1, lines[start].removeprefix("```").strip(), text, *said))
        start = None
    assert start is None, f"{page.name}: the block at line {start} does not end"
    return found


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
