"""No block in README and docs/ goes by unseen: it is run, read as a recipe, or a comment says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.recipe import Recipe
from tests.docs.blocks import PAGES, RECIPES, ROOT, RUN, SHOWN, Block, blocks_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
JSON = [block for block in BLOCKS if block.language in RECIPES and block.marker != "not a recipe"]
#: what a recipe needs beside the part that a page shows
LEAST = {"pruning": {"ratio": 0.5, "calibration": {"corpus": "text"}}}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_every_block_has_a_language_that_says_what_is_done_with_it(block: Block) -> None:
    assert block.language in RUN | RECIPES | SHOWN
    assert block.marker in {"", "not run", "stays", "not a recipe"}
    assert block.language in RUN or block.marker not in {"not run", "stays"}


@pytest.mark.parametrize("block", JSON, ids=lambda block: block.place)
def test_what_looks_like_a_recipe_is_one(block: Block) -> None:
    found = list(block.objects())
    assert found
    for part in found:
        Recipe.model_validate(LEAST | part)


def test_a_readme_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def page_of(tmp_path: Path, text: str) -> list[Block]:
    page = tmp_path / "page.md"
    page.write_text(text)
    return blocks_of(page)


def test_a_comment_belongs_to_the_block_right_behind_it(tmp_path: Path) -> None:
    marked, plain = page_of(tmp_path, "<!-- not run: an hour -->\n```sh\nsleep\n```\n\n```sh\ntrue\n```\n")
    assert (marked.marker, marked.why, marked.runs) == ("not run", "an hour", False)
    assert (plain.marker, plain.runs, plain.text) == ("", True, "true")


def test_objects_stand_behind_each_other_between_comments(tmp_path: Path) -> None:
    (block,) = page_of(tmp_path, '```jsonc\n// one\n{"a": "http://x"}  // end\n\n{"b": 2}\n```\n')
    assert list(block.objects()) == [{"a": "http://x"}, {"b": 2}]


def test_python_that_is_named_is_saved(tmp_path: Path) -> None:
    named, plain = page_of(tmp_path, "```python\n# tour.py\n1\n```\n\n```python\n# no name\n1\n```\n")
    assert (named.saved_as, plain.saved_as) == ("tour.py", None)
