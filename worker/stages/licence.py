"""Under which licence a base model is, by its own card, and the texts that have to go with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from publisher.base_model.files import CARD_FILE, is_document, is_legal
from publisher.files.reading import BASE, reading

_METADATA = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
#: of a card; metadata stands at its beginning
_READ_BYTES = 2**20


@dataclass(frozen=True)
class Licence:
    """As the Hub's metadata has it: `name` is an identifier ("mit", "other") or several, `custom` and `link` are what a
    card adds to "other". `texts`: files of the base model. `complaint`: why its card says nothing."""

    name: str | list[str] | None = None
    custom: str | None = None
    link: str | None = None
    texts: tuple[str, ...] = ()
    complaint: str | None = None


def read_licence(folder: Path) -> Licence:
    """What the card in `folder` says, whatever state it is in: a card that cannot be read names no licence."""
    texts = tuple(path.name for path in _documents(folder) if is_legal(path.name))
    card = folder / CARD_FILE
    if not card.is_file():
        return Licence(texts=texts)
    with reading(BASE, card), card.open("rb") as file:
        text = file.read(_READ_BYTES).decode("utf-8-sig", errors="replace")
    try:
        metadata = _metadata(text)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # yaml's own readers of `!!bool maybe` or `!!int ""` stumble
        return Licence(texts=texts, complaint=" ".join(f"{type(error).__name__}: {error}".split())[:200])
    return Licence(
        name=_names(metadata.get("license")),
        custom=_text(metadata.get("license_name")),
        link=_text(metadata.get("license_link")),
        texts=texts,
    )


def documents_digest(folder: Path | None) -> str | None:
    """sha256 over the card and licence texts of a local folder, which may change while the model stays the same."""
    if folder is None:
        return None
    with reading(BASE, folder):
        contents = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _documents(folder)}
    return hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()


def _documents(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob("*") if path.is_file() and is_document(path.name))


def _metadata(text: str) -> Mapping[str, object]:
    block = _METADATA.match(text)
    found = yaml.safe_load(block[1]) if block else {}
    if not isinstance(found or {}, dict):
        raise ValueError(f"its metadata is a {type(found).__name__}, not names and values")
    return found or {}


def _names(value: object) -> str | list[str] | None:
    names = [name for one in value if (name := _text(one))] if isinstance(value, list) else []
    return _text(value) or (names if len(names) > 1 else names[0] if names else None)


def _text(value: object) -> str | None:
    """One line of text; YAML can write halves of characters, which no card can."""
    line = value.strip() if isinstance(value, str) else ""
    return line if line and line.isprintable() else None
