"""What pydantic found wrong with a body, in words for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError

from publisher.recipe.recipe import Recipe

_SHOWN_LETTERS = 80
#: of a recipe that comes from elsewhere
_SHOWN_FIELDS = 5
_VALUE_ERROR = "Value error, "
#: of pydantic's sentences: Input, String, List, …
_SUBJECT = re.compile(r"^\w+ should")
#: names of fields whose values nobody repeats; `tokens` are counted
_SECRET = re.compile(r"(^|_)(token|secret|password|key|authorization)$", re.IGNORECASE)
#: kinds of error that pydantic tells of with names of our classes, and what JSON calls what is wanted
_SHAPES = {"model_type": "an object", "model_attributes_type": "an object", "list_type": "a list"}


class InvalidField(BaseModel):
    field: str = Field(description="path in the body", examples=["recipe.pruning.ratio"])
    message: str = Field(
        examples=["1.2 is not valid: it should be less than 1"],
        description="what is wrong with it and what would be right",
    )


def invalid_fields(errors: Iterable[Mapping[str, Any]]) -> list[InvalidField]:
    """One entry for each error of pydantic's `errors()` that somebody made: a default that follows from a wrong field
    is none."""
    return [_invalid_field(error) for error in errors if error["type"] != "default_factory_not_called"]


def wrong_fields(error: ValidationError) -> str:
    """Of a recipe that comes from elsewhere than a request: each wrong field and why, in one line."""
    # as in a request, where the recipe is a field of the body
    located = [{**entry, "loc": ("body", "recipe", *entry["loc"])} for entry in error.errors()]
    fields = invalid_fields(located)
    told = "; ".join(f"{_shortened(found.field)}: {found.message}" for found in fields[:_SHOWN_FIELDS])
    return told if len(fields) <= _SHOWN_FIELDS else f"{told}; and {len(fields) - _SHOWN_FIELDS} more"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…"


def _invalid_field(error: Mapping[str, Any]) -> InvalidField:
    # where FastAPI looked comes first: "body", "query", "path", "header"
    path = [part for part in error["loc"][1:] if part != "[key]"]
    if error["type"] == "json_invalid":
        reason = error.get("ctx", {}).get("error", error["msg"])
        return InvalidField(field="body", message=f"the body is not JSON, at character {path[-1]}: {reason}")
    field = ".".join(map(str, path)) or str(error["loc"][0])
    # names come from the body, too, and may hold what UTF-8 cannot
    return InvalidField(field=field.encode(errors="backslashreplace").decode(), message=_message(error, path))


def _message(error: Mapping[str, Any], path: Sequence[str | int]) -> str:
    message, kind = str(error["msg"]), error["type"]
    if kind == "missing":
        return "required, but missing"
    if kind == "extra_forbidden":
        return _unknown_field(path)
    if message.startswith(_VALUE_ERROR):
        return message.removeprefix(_VALUE_ERROR)
    message = f"it should be {_SHAPES[kind]}" if kind in _SHAPES else _SUBJECT.sub("it should", message)
    if "input" not in error or isinstance(error["input"], dict | list) or _may_be_secret(path):
        return message
    shown = _shortened(repr(error["input"]))
    return f"{shown} is not valid: {message}"


def _may_be_secret(path: Sequence[str | int]) -> bool:
    """What is wrong with a token is not shown to whoever keeps the answer; a body without fields may be one."""
    return not path or any(_SECRET.search(str(part)) for part in path)


def _unknown_field(path: Sequence[str | int]) -> str:
    name, fields = str(path[-1]), _fields_beside(path)
    shown = repr(_shortened(name))
    close = get_close_matches(name, fields, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; fields: {', '.join(fields)}" if fields else ""
    return f"there is no field {shown} here{hint}"


def _fields_beside(path: Sequence[str | int]) -> list[str]:
    """Names that the recipe has at the place of the path's last part."""
    if not path or path[0] != "recipe":
        return []
    model: Any = Recipe
    for part in path[1:-1]:
        if isinstance(part, str):
            field = model.model_fields.get(part)
            model = model_in(field.annotation) if field else None
        if model is None:
            return []
    return list(model.model_fields)


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `Model`, `Model | None` or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := model_in(argument))), None)
