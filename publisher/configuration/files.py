"""PUBLISHER_X_FILE names a file that holds setting x: how containers and service managers hand over secrets, which an
environment shows to whoever may look at the process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource, SettingsError

PREFIX = "PUBLISHER_"


class FilesOfTheEnvironment(PydanticBaseSettingsSource):
    """PUBLISHER_X_FILE=path: the text of the file, without white space around it; an empty file sets nothing."""

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            text, _, is_complex = self.get_field_value(field, name)
            if text:
                found[name] = self._value(name, field, text, is_complex=is_complex)
        return found

    def _value(self, name: str, field: FieldInfo, text: str, *, is_complex: bool) -> Any:
        try:
            return self.prepare_field_value(name, field, text, is_complex)
        except ValueError as error:
            raise SettingsError(f"{PREFIX}{name.upper()}_FILE names a file that holds no JSON: {error}") from None

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name}".upper()
        path = os.environ.get(f"{variable}_FILE")
        if path and os.environ.get(variable):
            raise SettingsError(f"{variable} and {variable}_FILE are both set: unset one of them")
        text = _text_of(path, f"{variable}_FILE") if path else None
        return text, field_name, self.field_is_complex(field)


def _text_of(path: str, variable: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        why = error.strerror
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    raise SettingsError(f"{variable} names {path}, which cannot be read by user {os.geteuid()}: {why}")
