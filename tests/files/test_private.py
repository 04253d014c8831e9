from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.files.private import close_to_others, write_private


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of an earlier version, and a folder of its owner's in it."""
    folder = tmp_path / "data"
    for name in ("publisher.db", "publisher.db-wal", "hub/blobs/ab/cd", "stages/prune-1/model", "models/mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        (folder / name).chmod(0o644)
    return folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_and_folders_of_an_earlier_version_are_closed(data: Path) -> None:
    assert close_to_others(data) == []
    assert {mode(path) for path in (data, data / "hub", data / "hub/blobs/ab")} == {0o700}
    assert {mode(data / name) for name in ("publisher.db", "publisher.db-wal", "hub/blobs/ab/cd")} == {0o600}
    assert mode(data / "models/mine") == 0o644


def test_members_of_the_group_may_do_what_the_owner_may_where_that_is_wanted(data: Path) -> None:
    close_to_others(data)
    assert close_to_others(data, group=True) == []
    assert {mode(data), mode(data / "stages")} == {0o770}
    assert mode(data / "publisher.db") == 0o660
    close_to_others(data)
    assert mode(data / "publisher.db") == 0o600


def test_a_folder_that_holds_other_things_stays_as_it_is_and_so_do_they(data: Path) -> None:
    (data / "website").mkdir(mode=0o755)
    close_to_others(data)
    assert mode(data) & 0o055 == 0o055
    assert mode(data / "website") == 0o755
    assert mode(data / "hub") == 0o700


def test_what_a_link_points_to_is_left_alone(data: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "weights").touch(mode=0o644)
    (data / "stages" / "weights").symlink_to(theirs / "weights")
    (data / "stages" / "folder").symlink_to(theirs)
    close_to_others(data)
    assert mode(theirs / "weights") == 0o644
    assert mode(theirs) & 0o055 == 0o055


def test_a_private_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        for text in ("first", "second"):
            write_private(tmp_path / "key", text)
    finally:
        os.umask(before)
    assert mode(tmp_path / "key") == 0o600
    assert (tmp_path / "key").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_secret_that_cannot_be_put_in_its_place_is_left_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "key", "secret")
    assert list(tmp_path.iterdir()) == [tmp_path / "key"]
