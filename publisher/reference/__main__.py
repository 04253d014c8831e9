"""`python -m publisher.reference [FOLDER]`: write the generated pages into FOLDER, docs/ by default."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from publisher.reference.adapters import adapters_page
from publisher.reference.monitoring import monitoring_page
from publisher.reference.recipes import recipes_page
from publisher.reference.scopes import scopes_page
from publisher.reference.settings import settings_page

#: file in docs/ → its text
PAGES: Mapping[str, Callable[[], str]] = {
    "adapters.md": adapters_page,
    "recipes.md": recipes_page,
    "scopes.md": scopes_page,
    "settings.md": settings_page,
    "monitoring.md": monitoring_page,
}


def write_pages(folder: Path) -> list[Path]:
    """Every generated page; answers which files changed."""
    changed = []
    for name, page in PAGES.items():
        path, text = folder / name, page()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(path)
    return changed


if __name__ == "__main__":
    for written in write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
        print(written)
