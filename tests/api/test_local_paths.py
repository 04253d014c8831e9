"""Folders in requests: nothing in them leads out of the allowed roots, however many entries there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.api import local_paths
from publisher.api.local_paths import allowed_path
from publisher.errors import RequestFault
from publisher.settings import Settings


def settings(tmp_path: Path) -> Settings:
    (tmp_path / "roots").mkdir()
    return Settings(data_dir=tmp_path / "data", local_roots=[tmp_path / "roots"])


def test_what_would_not_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = settings(tmp_path)
    for number in range(4):
        (tmp_path / "roots" / f"{number}.txt").touch()
    monkeypatch.setattr(local_paths, "_MOST_ENTRIES", 4)
    assert allowed_path(str(tmp_path / "roots"), allowed) == (tmp_path / "roots").resolve()
    monkeypatch.setattr(local_paths, "_MOST_ENTRIES", 3)
    with pytest.raises(RequestFault, match="holds more than 3 files and folders"):
        allowed_path(str(tmp_path / "roots"), allowed)
