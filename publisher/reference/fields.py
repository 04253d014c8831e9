"""A pydantic model's fields as rows for people: type, range, default and description, read from its JSON schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

Schema = Mapping[str, Any]

_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
#: what JSON's string stands for, by the schema's format
_FORMATS = {"path": "path", "password": "secret"}
_BY_OTHERS = "by other fields"


@dataclass(frozen=True)
class Row:
    name: str
    type: str
    range: str
    default: str
    description: str


def rows(model: type[BaseModel]) -> list[Row]:
    """One for each field, in the model's order. Descriptions of enums and parts stand in where a field has none."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    found = []
    for name, field in model.model_fields.items():
        value = schema["properties"][name]
        found.append(
            Row(
                name=name,
                type=" or ".join(_types(value, definitions)),
                range=", ".join(dict.fromkeys(_ranges(value))),
                default=_default(field),
                description=_description(value, definitions),
            )
        )
    return found


def _alternatives(value: Schema) -> Sequence[Schema]:
    alternatives: Sequence[Schema] = value.get("anyOf", [value])
    return alternatives


def _types(value: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    for one in _alternatives(value):
        if "$ref" in one:
            name = one["$ref"].rpartition("/")[2]
            named = definitions[name]
            yield _values(named["enum"]) if "enum" in named else f"[{name}](#{name.lower()})"
        elif one.get("type") == "array":
            yield f"list of {' or '.join(_types(one['items'], definitions))}"
        elif "const" in one or "enum" in one:
            yield _values(one.get("enum", [one.get("const")]))
        else:
            yield _FORMATS.get(one.get("format", ""), str(one["type"]))


def _values(values: Iterable[Any]) -> str:
    return ", ".join(_code(value) for value in values)


def _code(value: object) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _ranges(value: Schema) -> Iterator[str]:
    for one in _alternatives(value):
        yield from (f"{sign} {_number(one[bound])}" for bound, sign in _BOUNDS.items() if bound in one)
        if "minItems" in one:
            yield f"at least {one['minItems']}"
        if "pattern" in one:
            yield f"`{one['pattern']}`".replace("|", "\\|")
        if one.get("type") == "array":
            yield from _ranges(one["items"])


def _number(bound: float) -> str:
    return f"{int(bound) if bound == int(bound) else bound:,}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory_takes_validated_data:
        return _BY_OTHERS
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        return "its defaults"
    if default == "":
        return "empty"
    return _code(to_jsonable_python(default))


def _description(value: Schema, definitions: Mapping[str, Schema]) -> str:
    own = value.get("description", "")
    return own or _sentence(next(_descriptions(value, definitions), ""))


def _descriptions(value: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    for one in _alternatives(value):
        if "$ref" in one:
            yield definitions[one["$ref"].rpartition("/")[2]].get("description", "")


def _sentence(text: str) -> str:
    """A docstring on one line, without its last stop, as descriptions of fields are."""
    return " ".join(text.split()).removesuffix(".")
