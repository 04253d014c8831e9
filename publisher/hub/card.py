"""The YAML block at the top of README.md."""

from __future__ import annotations

import json
import re

import yaml

_BLOCK = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)


class CardError(ValueError):
    """The metadata of a model card cannot be used; the message says where and why."""


def read_metadata(text: str) -> dict[str, object]:
    """Metadata of a model card, empty where there is none. Raises CardError."""
    block = _BLOCK.match(text)
    if block is None:
        return {}
    try:
        data = yaml.safe_load(block.group(1))
    except yaml.YAMLError as error:
        raise CardError(f"The YAML block cannot be read: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise CardError(f"The YAML block must be a mapping of names to values, not a {type(data).__name__}.")
    # Through JSON, as the API gives it: dates become text.
    plain: dict[str, object] = json.loads(json.dumps({str(key): value for key, value in data.items()}, default=str))
    return plain


def tags(metadata: dict[str, object]) -> list[str]:
    """Tags as the Hub shows them: those of the card, then library, languages and license."""
    found = _texts(metadata.get("tags")) + _texts(metadata.get("library_name")) + _texts(metadata.get("language"))
    found += [f"license:{license}" for license in _texts(metadata.get("license"))]
    found += [f"base_model:{model}" for model in _texts(metadata.get("base_model"))]
    return list(dict.fromkeys(found))


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]
