"""Paths in requests: only what lies below the allowed folders, wherever symbolic links lead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from publisher.errors import RequestFault
from publisher.settings import Settings

#: entries of a folder; more is no model and no corpus
_MOST_ENTRIES = 1_000_000
_ALLOW = "allow its folder (`publisher up --allow FOLDER`, PUBLISHER_LOCAL_ROOTS)"
_ALLOW_OWN = "ask the service's operator for its folder (`publisher admin tenant roots TENANT PATH…`)"


def allowed_path(text: str, settings: Settings, own: Sequence[str] | None = None) -> Path:
    """The real path behind `text`; RequestFault if it, or anything in that folder, lies outside the allowed roots:
    the tenant's `own`, if the operator gave it some, or those of the settings."""
    if "\0" in text:
        raise RequestFault("the path holds a NUL character.", field="path")
    path = Path(text)
    if not path.is_absolute():
        raise RequestFault(f"path {text!r} is relative.", field="path", way_out="Give an absolute path.")
    roots = roots_of(settings, own)
    allow = _ALLOW if own is None else _ALLOW_OWN
    try:
        real = path.resolve()
        _require_within(real, path, roots, allow)
        for number, entry in enumerate(real.rglob("*") if real.is_dir() else ()):
            if number == _MOST_ENTRIES:  # what is not looked at may lead anywhere
                raise _too_many(text)
            if entry.is_symlink():
                _require_within(entry.resolve(), entry, roots, allow)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise RequestFault(f"path {text!r} cannot be read: {error}.", field="path") from error
    return real


def roots_of(settings: Settings, own: Sequence[str] | None = None) -> list[Path]:
    """The folders that a tenant may register from: its `own`, if the operator gave it some."""
    return settings.allowed_roots if own is None else [Path(root).resolve() for root in own]


def _too_many(text: str) -> RequestFault:
    return RequestFault(
        f"path {text!r} holds more than {_MOST_ENTRIES:,} files and folders.",
        field="path",
        way_out="Name a folder of less, or write its text to fewer, larger files.",
    )


def _require_within(real: Path, given: Path, roots: Sequence[Path], allow: str) -> None:
    if not any(real.is_relative_to(root) for root in roots):
        below = f"Move it below {' or '.join(map(str, roots))}" if roots else "Register from a Hub"
        raise RequestFault(
            f"{given} lies outside the folders that may be read.", field="path", way_out=f"{below}, or {allow}."
        )
