"""The one exception tree: problem details in the API, a failure in a job, a status on the command line."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """`text` with its half surrogates escaped: names of files and fields may hold them, and no answer, database or
    terminal takes them."""
    return text.encode("utf-8", "backslashreplace").decode()


def listed(words: Iterable[str], last: str = "and") -> str:
    """`a, b and c`"""
    *first, final = [*words] or ["none"]
    return f"{', '.join(first)} {last} {final}" if first else final


class PublisherError(Exception):
    """Something a person has to know about.

    `message` names the thing and the value; `field` is the path in the request body that is wrong
    (`recipe.pruning.ratio`), `way_out` says what would be right.
    """

    status = 500
    slug = "internal"
    title = "Internal error"
    #: seconds after which it may go better; None: nobody knows
    retry_after: float | None = None

    def __init__(self, message: str, *, field: str | None = None, way_out: str | None = None) -> None:
        self.message = printable(message)
        self.field = field
        self.way_out = None if way_out is None else printable(way_out)
        super().__init__(self.message if way_out is None else f"{self.message} {self.way_out}")


class RequestFault(PublisherError):
    """The request itself is to blame; doing it again will not help."""

    status = 422
    slug = "invalid-request"
    title = "Invalid request"


class Unauthorized(RequestFault):
    status = 401
    slug = "unauthorized"
    title = "Unauthorized"


class NotFound(RequestFault):
    status = 404
    slug = "not-found"
    title = "Not found"


class Conflict(RequestFault):
    status = 409
    slug = "conflict"
    title = "Conflict"


class UnsupportedModel(RequestFault):
    """A base model that cannot be pruned here: missing, unsafe, damaged, or of a family without support."""

    slug = "unsupported-model"
    title = "Base model cannot be used"


class InfrastructureFault(PublisherError):
    """A machine, disk, network or service is to blame; doing it again may help."""

    status = 503
    slug = "infrastructure"
    title = "Infrastructure problem"


class OutOfDisk(InfrastructureFault):
    """No space left, or too little for what comes. A job waits for it: freeing space lets it go on."""

    status = 507
    slug = "out-of-disk"
    title = "Disk full"


class HubUnavailable(InfrastructureFault):
    """A Hub is away, overloaded or limits the rate. `retry_after`: seconds that it asked to be left alone for."""

    slug = "hub-unavailable"
    title = "Hub unavailable"

    def __init__(
        self, message: str, *, field: str | None = None, way_out: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, field=field, way_out=way_out)
        self.retry_after = retry_after


class CredentialFault(InfrastructureFault):
    """A token of the operator's is missing, wrong or may do too little; a job waits for a better one."""

    slug = "credential"
    title = "Credential refused"


class JobCancelled(PublisherError):
    """Raised inside a stage when its job was asked to stop."""

    status = 409
    slug = "cancelled"
    title = "Cancelled"


class JobPaused(PublisherError):
    """Raised inside a stage when its job is to stop for now and go on later from what it has saved."""

    status = 409
    slug = "paused"
    title = "Paused"


class LeaseLost(PublisherError):
    """This worker no longer owns the job; whatever it would write is refused."""

    status = 409
    slug = "lease-lost"
    title = "Lease lost"
