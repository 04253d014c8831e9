"""What is wrong with a form, each fault beside its field, all at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from pydantic import ValidationError

from publisher.errors import PublisherError
from publisher.recipe.invalid_fields import invalid_fields


@dataclass(frozen=True)
class Fault:
    """`field`: path in the request's body, None for the form as a whole."""

    field: str | None
    message: str
    way_out: str | None = None

    @classmethod
    def of(cls, fault: PublisherError) -> Fault:
        return cls(fault.field, fault.message, fault.way_out)

    def __str__(self) -> str:
        said = self.message[:1].upper() + self.message[1:]
        return f"{said} {self.way_out}" if self.way_out else said


@dataclass(frozen=True)
class Faults:
    """`places`: fields and groups of the form, by their paths."""

    found: tuple[Fault, ...] = ()
    places: frozenset[str] = frozenset()

    @classmethod
    def at_places(cls, found: Iterable[Fault], places: Iterable[str]) -> Faults:
        # the same may be found by several checks
        return cls(tuple(dict.fromkeys(found)), frozenset(places))

    def at(self, place: str) -> list[Fault]:
        """Those of a field, or of a group as a whole; what is wrong within a field counts as its own."""
        return self._by_place.get(place, [])

    @property
    def elsewhere(self) -> list[Fault]:
        """Those that no place of the form stands for."""
        return self.at("")

    def place_of(self, fault: Fault) -> str:
        """The field or group whose path begins the fault's; "" if there is none."""
        # names within a field may be long and full of dots: no place lies deeper than these steps
        steps = (fault.field or "").split(".", self._depth)[: self._depth]
        paths = (".".join(steps[:count]) for count in range(len(steps), 0, -1))
        return next((path for path in paths if path in self.places), "")

    @cached_property
    def _depth(self) -> int:
        return 1 + max((place.count(".") for place in self.places), default=0)

    @cached_property
    def _by_place(self) -> dict[str, list[Fault]]:
        found: dict[str, list[Fault]] = {}
        for fault in self.found:
            found.setdefault(self.place_of(fault), []).append(fault)
        return found


def of_model(error: ValidationError) -> Iterator[Fault]:
    """What pydantic found wrong with a body."""
    # as FastAPI has them, whose first word says where it looked
    located = [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
    for found in invalid_fields(located):
        yield Fault(None if found.field == "body" else found.field, found.message)


def raised_by(checks: Collection[Callable[[], object]]) -> Iterator[PublisherError]:
    """What each of these refuses."""
    for check in checks:
        try:
            check()
        except PublisherError as fault:
            yield fault
