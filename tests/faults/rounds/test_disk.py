"""Disks that are full for a while."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.rounds.disk import LimitedFiles, disk_for

WRITER = "import sys\nfor line in sys.stdin:\n    try:\n        open(line.strip(), 'wb').write(bytes(1 << 20))\n"
WRITER += "    except OSError as error:\n        print(type(error).__name__, error.errno, flush=True)\n"
WRITER += "    else:\n        print('written', flush=True)\n"


@pytest.fixture
def writer() -> Iterator[psutil.Popen]:
    process = psutil.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.communicate()


def said(writer: psutil.Popen, path: Path) -> str:
    writer.stdin.write(f"{path}\n")
    writer.stdin.flush()
    return str(writer.stdout.readline()).strip()


@pytest.mark.parametrize("limited", [False, True])
def test_nothing_large_is_written_to_a_full_disk_until_it_is_freed(
    tmp_path: Path, writer: psutil.Popen, limited: bool
) -> None:
    with disk_for(tmp_path / "data", lambda: [writer]) as own:
        disk = LimitedFiles(lambda: [writer]) if limited else own
        assert said(writer, tmp_path / "data" / "before") == "written"
        disk.fill()
        assert said(writer, tmp_path / "data" / "full").startswith("OSError")
        disk.free()
        assert said(writer, tmp_path / "data" / "after") == "written"
