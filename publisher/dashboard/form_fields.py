"""A pydantic model as the fields of a form: walked, not copied, so that a new field of it is there at once.

A field's name in a form is its path in the request's body (`recipe.pruning.ratio`), which is also how faults name it.
What is left blank is left out of the body: it has its default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from publisher.recipe.invalid_fields import model_in

Schema = Mapping[str, Any]

_BOUNDS = {
    "exclusiveMinimum": "more than",
    "minimum": "at least",
    "exclusiveMaximum": "less than",
    "maximum": "at most",
}
_YES_NO = {"true": True, "false": False}
#: from here on a number reads better with an exponent
_MANY = 1e15
_BETWEEN_ITEMS = re.compile(r"[\n,]")


class Kind(StrEnum):
    """What people fill in: a line of text, a number, one of some words; a list, one item a line; pairs, one a line."""

    LINE = "line"
    NUMBER = "number"
    CHOICE = "choice"
    LIST = "list"
    PAIRS = "pairs"


@dataclass(frozen=True)
class FormField:
    """`default` is written as one would type it, "" where it follows from other fields or is none. `columns`: of a
    list's items, which are written in one line; none where an item is a text."""

    path: str
    kind: Kind
    label: str
    hint: str
    range: str
    default: str
    required: bool
    choices: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """What the body gets; what cannot be one stays a text, of which the model says what is wrong."""
        match self.kind:
            case Kind.LINE:
                return text
            case Kind.NUMBER:
                return _number(text)
            case Kind.CHOICE:
                return _YES_NO.get(text, text)
            case Kind.LIST:
                return [self._item(item) for item in _items(text)]
            case Kind.PAIRS:
                return dict(_pair(item) for item in _items(text))

    def write(self, value: Any) -> str:
        """The text that `read` makes such a value of."""
        if value is None:
            return ""
        if self.kind is Kind.LIST and isinstance(value, list):
            return "\n".join(self._line(item) for item in value)
        if self.kind is Kind.PAIRS and isinstance(value, Mapping):
            return "\n".join(f"{name}={_plain(each)}" for name, each in value.items())
        return _plain(value)

    def _item(self, text: str) -> Any:
        """`docs 3` or `docs × 3` → `{"name": "docs", "weight": 3}`."""
        if not self.columns:
            return text
        words = [word for word in text.split() if word not in {"×", "x", "*"}]
        values = [words[0], *map(_number, words[1:])] if 0 < len(words) <= len(self.columns) else [text]
        return dict(zip(self.columns, values, strict=False))

    def _line(self, item: Any) -> str:
        if not self.columns or not isinstance(item, Mapping) or not item.keys() <= set(self.columns):
            return _plain(item)
        first, *others = (item[column] for column in self.columns if column in item)
        return " ".join([_plain(first), *(_plain(other) for other in others if other != 1)])


@cache
def fields_of(model: type[BaseModel]) -> tuple[FormField, ...]:
    """Every field of a model and of the models in it, in order."""
    schema = model.model_json_schema()
    return tuple(_fields(model, schema, schema.get("$defs", {}), "", ""))


def optional_parts(model: type[BaseModel]) -> list[str]:
    """Paths of the models within `model` that may be null."""
    schema = model.model_json_schema()
    return [path for path, is_optional in _parts(schema, schema.get("$defs", {}), "") if is_optional]


def body_of(fields: Iterable[FormField], texts: Mapping[str, str], without: Iterable[str] = ()) -> dict[str, Any]:
    """The request's body that these texts say; `without` these parts."""
    body: dict[str, Any] = {}
    left_out = tuple(f"{part}." for part in without)
    for field in fields:
        text = texts.get(field.path, "").strip()
        if not text or field.path.startswith(left_out) or (text == field.default and not field.required):
            continue
        put(body, field.path, field.read(text))
    return body


def texts_of(fields: Iterable[FormField], body: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the fields for such a body."""
    return {field.path: field.write(value_at(body, field.path)) for field in fields}


def value_at(body: Any, path: str) -> Any:
    """None where there is nothing."""
    for step in path.split("."):
        body = body.get(step) if isinstance(body, Mapping) else None
    return body


def put(body: dict[str, Any], path: str, value: Any) -> None:
    *way, name = path.split(".")
    for step in way:
        body = body.setdefault(step, {})
    body[name] = value


def without_defaults(part: BaseModel) -> dict[str, Any]:
    """The shortest JSON that means the same."""
    found = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if field.is_required() or value != field.get_default(call_default_factory=True, validated_data=dict(part)):
            found[name] = without_defaults(value) if isinstance(value, BaseModel) else _short(value)
    return found


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [without_defaults(item) if isinstance(item, BaseModel) else _short(item) for item in value]
    return to_jsonable_python(value)


def _fields(
    model: type[BaseModel], schema: Schema, definitions: Mapping[str, Schema], above: str, words: str
) -> Iterator[FormField]:
    models = _models_in(model)
    for name, value in schema["properties"].items():
        part = _part(value, definitions)
        path, label = f"{above}{name}", f"{words} {name}".strip().replace("_", " ")
        if part is not None:
            yield from _fields(models[name], part, definitions, f"{path}.", label if above.count(".") > 1 else "")
        else:
            yield _field(path, label, value, model.model_fields[name], definitions)


def _parts(schema: Schema, definitions: Mapping[str, Schema], above: str) -> Iterator[tuple[str, bool]]:
    for name, value in schema["properties"].items():
        part = _part(value, definitions)
        if part is not None:
            yield f"{above}{name}", any(one.get("type") == "null" for one in _alternatives(value))
            yield from _parts(part, definitions, f"{above}{name}.")


def _models_in(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    return {name: found for name, field in model.model_fields.items() if (found := model_in(field.annotation))}


def _part(value: Schema, definitions: Mapping[str, Schema]) -> Schema | None:
    """The model that a field holds, perhaps."""
    named = [_resolved(one, definitions) for one in _alternatives(value)]
    return next((one for one in named if "properties" in one), None)


def _field(path: str, label: str, value: Schema, field: FieldInfo, definitions: Mapping[str, Schema]) -> FormField:
    forms = [_resolved(one, definitions) for one in _alternatives(value)]
    wanted = [form for form in forms if form.get("type") != "null"]
    kind = _kind(wanted)
    made = FormField(
        path=path,
        kind=kind,
        label=label,
        hint=(value.get("description") or _sentence(wanted[0].get("description", ""))).replace("`", ""),
        range=_range(wanted),
        default="",
        required=field.is_required(),
        choices=tuple(_choices(wanted)) if kind is Kind.CHOICE else (),
        columns=_columns(wanted[0], definitions) if kind is Kind.LIST else (),
    )
    return FormField(**{**vars(made), "default": made.write(_default(field))})


def _kind(forms: Sequence[Schema]) -> Kind:
    types = {form.get("type") for form in forms}
    if "boolean" in types or any("enum" in form for form in forms):
        return Kind.CHOICE
    if types & {"number", "integer"}:
        return Kind.NUMBER
    if "array" in types:
        return Kind.LIST
    return Kind.PAIRS if "object" in types else Kind.LINE


def _choices(forms: Iterable[Schema]) -> Iterator[str]:
    for form in forms:
        yield from _YES_NO if form.get("type") == "boolean" else form.get("enum", [form.get("const")])


def _columns(form: Schema, definitions: Mapping[str, Schema]) -> tuple[str, ...]:
    return tuple(_resolved(form["items"], definitions).get("properties", {}))


def _range(forms: Iterable[Schema]) -> str:
    said = [f"{words} {form[bound]:,}" for form in forms for bound, words in _BOUNDS.items() if bound in form]
    return ", ".join(said)


def _default(field: FieldInfo) -> Any:
    if field.is_required() or field.default_factory_takes_validated_data:
        return None
    return to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))


def _alternatives(value: Schema) -> Sequence[Schema]:
    found: Sequence[Schema] = value.get("anyOf", [value])
    return found


def _resolved(value: Schema, definitions: Mapping[str, Schema]) -> Schema:
    return definitions[value["$ref"].rpartition("/")[2]] if "$ref" in value else value


def _sentence(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")


def _items(text: str) -> list[str]:
    return [item.strip() for item in _BETWEEN_ITEMS.split(text) if item.strip()]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def _number(text: str) -> Any:
    """`200,000` and `1e-4` are numbers; anything else is a text."""
    plain = text.replace(",", "").replace("_", "")
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        value = float(plain)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < _MANY:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
