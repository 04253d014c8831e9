"""Where a change comes from: the request, and who was found to have sent it.

A request's middleware opens its `Origin`, whatever finds out who calls fills it in, and the audit log reads it: no
route passes it on, so none can forget to. Outside of a request the operator acts, or a process of the service.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

#: of the request that is answered in this context; None outside of one
current_request_id: ContextVar[str | None] = ContextVar("id of the request", default=None)


class SubjectKind(StrEnum):
    """What acts: an API key, a session of the dashboard, a job (its worker, or who looks after lost ones), the
    operator's command line or the service itself, or a request that nobody signed."""

    KEY = "key"
    SESSION = "session"
    JOB = "job"
    OPERATOR = "operator"
    NOBODY = "nobody"


@dataclass(frozen=True)
class Subject:
    """Who acts. `id` of the key, session or job; `key_id`: the key that a session was begun with, or the key itself."""

    kind: SubjectKind
    id: str | None = None
    key_id: str | None = None

    @classmethod
    def key(cls, id: str) -> Subject:
        return cls(SubjectKind.KEY, id, id)

    @classmethod
    def session(cls, id: str, key_id: str) -> Subject:
        """Sixteen digits of a session's id tell sessions apart."""
        return cls(SubjectKind.SESSION, id[:16], key_id)

    @classmethod
    def job(cls, id: str) -> Subject:
        return cls(SubjectKind.JOB, id)


@dataclass
class Origin:
    """`address` of the client, as the server or its trusted proxy tells it. `rate`: publisher.hub.rate_window.Rate,
    once the request was counted."""

    request_id: str | None = None
    address: str | None = None
    subject: Subject = Subject(SubjectKind.OPERATOR)
    rate: object | None = None


# an object that is filled in, since threads work in copies of the request's context
_current: ContextVar[Origin | None] = ContextVar("origin of changes", default=None)


def open_request(request_id: str, address: str | None) -> None:
    """From here on this context answers a request; nobody is known to have sent it yet."""
    current_request_id.set(request_id)
    _current.set(Origin(request_id, address, Subject(SubjectKind.NOBODY)))


def caller_is(subject: Subject) -> None:
    """It was found out who sent the request. Outside of one, nothing is remembered."""
    origin = _current.get()
    if origin is not None:
        origin.subject = subject


def current() -> Origin:
    return _current.get() or Origin()
