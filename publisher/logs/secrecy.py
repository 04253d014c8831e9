"""Keeps secrets out of log lines that should never have been given one: the last net, not the first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from pydantic import SecretStr

from publisher.settings import Settings

HIDDEN = "[hidden]"

#: fields whose text is never shown
_SECRET_FIELD = re.compile(
    r"(authorization|password|passwd|secret|token|cookie|signature|credentials?|api_?key)$", re.IGNORECASE
)
#: what looks like a secret wherever it stands; the groups stay
_PATTERNS = (
    re.compile(r"()\b(?:loram|lpj|whsec|hf)_[\w.+/=-]{12,}()"),
    re.compile(r"(\b(?:Bearer|Basic)\s+)[\w.~+/=:-]{6,}()", re.IGNORECASE),
    re.compile(r"(://[^/\s:@'\"]*:)[^@/\s'\"]+(@)"),
    re.compile(r"([?&](?:\w*(?:signature|token|secret|password|key)|X-Amz-\w+)=)[^&\s'\"]+()", re.IGNORECASE),
    re.compile(
        r"((?:set-)?(?:authorization|cookie)['\"]?\s*[:=]\s*['\"]?(?!Bearer|Basic))[^'\"\r\n]+()", re.IGNORECASE
    ),
)
#: a shorter value would hide words that only look like it
_SHORTEST = 6


class Secrecy:
    """A processor of structlog that hides the values of secret settings, and what looks like a secret."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        longest_first = sorted({value for value in values if len(value) >= _SHORTEST}, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in line.items():
            line[name] = self._field(name, value)
        return line

    def text(self, text: str) -> str:
        """`text` with its secrets hidden."""
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\1{HIDDEN}\2", text)
        return text

    def _field(self, name: object, value: object) -> object:
        if isinstance(value, str | bytes) and _SECRET_FIELD.search(str(name)):
            return HIDDEN
        return self._value(value)

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self._field(name, each) for name, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(each) for each in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))


def secrets_of(settings: Settings) -> list[str]:
    """The values of all secret settings that are set."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
