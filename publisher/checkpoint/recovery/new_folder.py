"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.errors import RequestFault


def refuse_occupied(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RequestFault(f"{output} already holds something.", way_out="Name a folder that does not exist yet.")


def _made_beside(output: Path) -> Path:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise RequestFault(
            f"{output} cannot be made: {error.strerror} ({error.filename}).", way_out="Name a folder that can be."
        ) from error


@contextmanager
def renamed_when_whole(output: Path) -> Iterator[Path]:
    """A folder beside `output` (so on the same disk) that takes its name at the end, or vanishes."""
    partial = _made_beside(output)
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
