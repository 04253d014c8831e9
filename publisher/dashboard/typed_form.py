"""Forms whose fields are a model's: read as a whole, and shown again as they were typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from publisher.dashboard.faults import Fault, Faults, of_model
from publisher.dashboard.form_fields import FormField, body_of, fields_of
from publisher.errors import PublisherError

Asked = TypeVar("Asked", bound=BaseModel)


async def typed_form(request: Request) -> FormData:
    """All that a form holds, whatever its fields are."""
    return await request.form()


TypedForm = Annotated[FormData, Depends(typed_form)]


@dataclass(frozen=True)
class Section:
    """Fields of a form under a title, with a note; `names`: of the model's fields."""

    title: str
    note: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class ModelForm:
    """A form for a request body of `model`. Every field of it has its place in a section."""

    model: type[BaseModel]
    sections: tuple[Section, ...]

    @property
    def fields(self) -> Mapping[str, FormField]:
        return {field.path: field for field in fields_of(self.model)}

    def texts(self, form: Mapping[str, Any]) -> dict[str, str]:
        """What was typed into each field."""
        return {path: str(form.get(path, "")) for path in self.fields}

    def body(self, texts: Mapping[str, str]) -> dict[str, Any]:
        return body_of(self.fields.values(), texts)

    def faults(self, found: Iterable[Fault]) -> Faults:
        return Faults.at_places(found, self.fields)


def faults_of(error: ValidationError | PublisherError) -> tuple[list[Fault], int]:
    """What a form is refused for, and the answer's status."""
    if isinstance(error, PublisherError):
        return [Fault.of(error)], error.status
    return list(of_model(error)), 422
