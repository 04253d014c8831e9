"""Forms that come back: what somebody typed, and what is wrong with it, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

from fastapi import Form
from pydantic import BaseModel, ValidationError

from publisher.errors import PublisherError, RequestFault
from publisher.recipe.invalid_fields import invalid_fields

Body = TypeVar("Body", bound=BaseModel)

#: one line of a form, as it was typed
Line = Annotated[str, Form(max_length=4000)]
Ticked = Annotated[list[str], Form(max_length=100)]


class WrongFields(RequestFault):
    """`by_field`: what is wrong with each."""

    def __init__(self, by_field: Mapping[str, str]) -> None:
        super().__init__("; ".join(by_field.values()))
        self.by_field = by_field


@dataclass(frozen=True)
class Filled:
    """`faults` by the field's name; under "" what is wrong with the form as a whole."""

    values: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """What was typed there, or nothing."""
        return self.values.get(name, "")

    @property
    def first_fault(self) -> str | None:
        """The field that the reader is led to."""
        return next((name for name in self.values if name in self.faults), None)

    @classmethod
    def refused(cls, values: Mapping[str, Any], fault: PublisherError) -> Self:
        """The form as it was sent. What is wrong with a field that it does not have is wrong with the whole."""
        found = fault.by_field if isinstance(fault, WrongFields) else {fault.field or "": str(fault)}
        return cls(values, {name if name in values else "": _sentence(text) for name, text in found.items()})


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def read(body: type[Body], values: Mapping[str, Any]) -> Body:
    """What the API takes, of what a form says. Raises WrongFields."""
    try:
        return body.model_validate(values)
    except ValidationError as error:
        located = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        # of `events.3` the form has `events`
        found = [(each.field.partition(".")[0], each.message) for each in invalid_fields(located)]
        raise WrongFields(dict(reversed(found))) from None


def day(text: str, name: str) -> float | None:
    """The beginning of a day in UTC, in seconds since 1970, of what `<input type="date">` sends; None of nothing.
    RequestFault for what is no day."""
    return _moment(text, name, "a day, as 2026-12-31")


def minute(text: str, name: str) -> float | None:
    """As `day`, of what `<input type="datetime-local">` sends, in UTC."""
    return _moment(text, name, "a day and a time, as 2026-12-31T23:59")


def _moment(text: str, name: str, wanted: str) -> float | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise RequestFault(f"{text[:40]!r} is not {wanted}.", field=name) from None
