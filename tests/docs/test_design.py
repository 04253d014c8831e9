"""docs/design.md says what is there: rooms, and the calls of the REST interface."""

from __future__ import annotations

import re

import pytest

from publisher.app import create_app
from publisher.settings import Settings
from tests.docs.blocks import ROOT, blocks_of

DESIGN = ROOT / "docs" / "design.md"
_CALL = re.compile(r"`(GET|POST|DELETE|PUT|PATCH) (/[^`]*)`")


def rooms_of(package: str) -> set[str]:
    """Folders and modules of a package, as the layout writes them."""
    inside = [path for path in (ROOT / package).iterdir() if not path.name.startswith("_")]
    folders = {f"{path.name}/" for path in inside if (path / "__init__.py").exists()}
    return folders | {path.name for path in inside if path.suffix == ".py"}


@pytest.mark.parametrize("package", ["publisher", "worker"])
def test_the_layout_names_every_room(package: str) -> None:
    (layout,) = [block.text for block in blocks_of(DESIGN) if block.language == "text"]
    named = set(re.findall(r"[\w.]+/|[\w]+\.py", layout))
    assert rooms_of(package) - named == set()


def test_the_layout_names_no_room_that_is_gone() -> None:
    (layout,) = [block.text for block in blocks_of(DESIGN) if block.language == "text"]
    described = layout[: layout.index("migrations/")]
    named = set(re.findall(r"(?<![\w/.])(\w+/|\w+\.py)(?!\w)", described)) - {"publisher/", "worker/", "docs/"}
    assert named - rooms_of("publisher") - rooms_of("worker") == set()


def test_the_table_of_calls_is_the_interface(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert set(_CALL.findall(DESIGN.read_text())) == served
