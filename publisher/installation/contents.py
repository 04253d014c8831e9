"""Copying the contents of the embedded Hub's files, each checked against its name while it is read."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from publisher.errors import InfrastructureFault
from publisher.hub.disk import disk_full_is_named
from publisher.installation.record import Progress

_PIECE = 1024**2


def copy_content(source: Path, target: Path, sha256: str, on_bytes: Progress) -> None:
    """Whole or not at all. Raises InfrastructureFault where `source` is missing or is not what its name says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with disk_full_is_named(target.parent):
            found = _copy(source, partial, on_bytes)
        if found != sha256:
            raise InfrastructureFault(f"{source} is damaged: its bytes have the sha256 {found}.")
        partial.replace(target)
    except FileNotFoundError:
        raise InfrastructureFault(f"{source} is missing.") from None
    finally:
        partial.unlink(missing_ok=True)


def _copy(source: Path, target: Path, on_bytes: Progress) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("xb") as writing:
        while piece := reading.read(_PIECE):
            digest.update(piece)
            writing.write(piece)
            on_bytes(len(piece))
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()
