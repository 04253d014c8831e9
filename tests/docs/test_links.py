"""Links in README and docs/ lead to what is there, and commands in the running text have the options they are given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from publisher.client.main import cli
from tests.docs.blocks import PAGES, ROOT, prose_of

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_MAKE = re.compile(r"make ([a-z-]+)")
_MODULE = re.compile(r"python -m ([\w.]+)")


def places_of(page: Path) -> Iterator[str]:
    """The anchors that a page's headings make, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def dead_links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(prose_of(page)):
        if "://" in link:
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (place and place not in set(places_of(target))):
            yield link


def codes_of(page: Path) -> list[str]:
    return [code for code in _CODE.findall(prose_of(page)) if "…" not in code]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in _LINK.findall((ROOT / "README.md").read_text())}
    assert set(PAGES) - {ROOT / "README.md"} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_have_the_options_that_they_are_given(page: Path) -> None:
    for code in codes_of(page):
        if code.startswith("publisher "):
            assert unknown_options(code) == [], code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_modules_in_the_text_are_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for code in codes_of(page):
        if named := _MAKE.match(code):
            assert f"\n{named.group(1)}:" in makefile, code
        if named := _MODULE.match(code):
            assert find_spec(named.group(1)), code


def unknown_options(command: str) -> list[str]:
    """Options in `publisher NAME …` that its command does not have; the name itself, if there is none such."""
    _, *words = command.split()
    with click.Context(cli) as context:
        found: click.Command = cli
        while isinstance(found, click.Group) and words:
            inner = found.get_command(context, words[0])
            if inner is None:
                return [words[0]]
            found, words = inner, words[1:]
    known = {option for parameter in found.params for option in parameter.opts}
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]


@pytest.mark.parametrize(
    ("command", "unknown"),
    [
        ("publisher recover ADAPTER --base B", []),
        ("publisher hub check --data data", []),
        ("publisher recover --bass B", ["--bass"]),
        ("publisher recovery", ["recovery"]),
    ],
)
def test_an_option_that_is_not_there_is_found(command: str, unknown: list[str]) -> None:
    assert unknown_options(command) == unknown


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A head: of `words`\n[a](#a-head-of-words) [b](#other) [c](absent.md) [d](https://x.example)\n")
    assert list(dead_links(page)) == ["#other", "absent.md"]
