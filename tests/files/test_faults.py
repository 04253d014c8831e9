"""Whose fault it is that a file cannot be read: the same for corpora, models and JSON."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.base_model.files import FolderFiles
from publisher.corpus.files import text_files
from publisher.errors import InfrastructureFault, RequestFault
from publisher.files.json_object import read_object


def read_model(folder: Path) -> object:
    return FolderFiles(folder).sizes()


def read_json(folder: Path) -> object:
    return read_object(folder / "config.json")


@pytest.mark.parametrize("read", [read_model, text_files, read_json])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, RequestFault),
        (errno.ENOENT, RequestFault),
        (errno.EIO, InfrastructureFault),
        (errno.ESTALE, InfrastructureFault),
    ],
)
def test_a_disk_that_fails_is_not_blamed_on_the_request(
    read: Callable[[Path], object],
    number: int,
    expected: type[Exception],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config.json").write_text("{}")

    def fail(path: object, *arguments: object, **options: object) -> object:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "scandir", fail)
    monkeypatch.setattr(os, "listdir", fail)
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(expected, match=tmp_path.name):
        read(tmp_path)
