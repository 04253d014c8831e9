"""Generated pages: the ones in docs/ are those that the code makes now, and they say something of every field."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from publisher.recipe import Criterion, Optimizer
from publisher.reference.__main__ import PAGES, write_pages
from publisher.reference.fields import Row, rows
from publisher.reference.markdown import table
from publisher.reference.recipes import PARTS, recipes_page
from publisher.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_stale_when_the_code_says_something_else(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), f"docs/{name} is stale: run `make docs`"


@pytest.mark.parametrize("model", [*PARTS, Settings])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    assert [row.name for row in rows(model) if not row.description] == []


def test_every_part_of_a_recipe_has_a_table_of_its_own() -> None:
    page = recipes_page()
    linked = {word.split("]")[0] for word in page.split("[")[1:] if "](#" in word}
    assert linked == {part.__name__ for part in PARTS} - {"Recipe"}
    assert all(f"\n## {name}\n" in page for name in linked)


def test_every_criterion_and_optimizer_is_named() -> None:
    page = recipes_page()
    assert all(f"`{name}`" in page for name in [*Criterion, *Optimizer])


def test_pages_are_written_once(tmp_path: Path) -> None:
    assert {path.name for path in write_pages(tmp_path)} == set(PAGES)
    assert write_pages(tmp_path) == []


class Shape(BaseModel):
    """Of a toy."""

    sides: int | None = Field(default=None, ge=3, lt=2**63, description="how many")
    names: list[str] = Field(default_factory=list, description="of the corners")
    length: float = Field(gt=0, le=1e6, description="of a side, in metres")


def test_a_row_holds_type_range_and_default() -> None:
    assert rows(Shape) == [
        Row("sides", "integer or null", "≥ 3, < 9,223,372,036,854,775,808", "`null`", "how many"),
        Row("names", "list of string", "", "`[]`", "of the corners"),
        Row("length", "number", "> 0, ≤ 1,000,000", "required", "of a side, in metres"),
    ]


def test_a_column_without_content_is_left_out() -> None:
    assert table(["a", "b", "c"], [["1", "", "2"]]) == "| a | c |\n| --- | --- |\n| 1 | 2 |"
