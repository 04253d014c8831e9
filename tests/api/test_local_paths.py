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


def test_a_tenants_own_folders_stand_instead_of_those_of_the_settings(tmp_path: Path) -> None:
    allowed = settings(tmp_path)
    (tmp_path / "own" / "model").mkdir(parents=True)
    own = [str(tmp_path / "own")]
    assert allowed_path(str(tmp_path / "own" / "model"), allowed, own) == (tmp_path / "own" / "model").resolve()
    with pytest.raises(RequestFault, match="publisher admin tenant roots"):
        allowed_path(str(tmp_path / "roots"), allowed, own)
    with pytest.raises(RequestFault, match="PUBLISHER_LOCAL_ROOTS"):
        allowed_path(str(tmp_path / "own"), allowed)
    with pytest.raises(RequestFault, match="Register from a Hub"):
        allowed_path(str(tmp_path / "own"), allowed, [])
    (tmp_path / "own" / "model" / "link").symlink_to(tmp_path / "roots")
    with pytest.raises(RequestFault, match="lies outside"):
        allowed_path(str(tmp_path / "own" / "model"), allowed, own)
