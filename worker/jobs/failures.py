"""From what a stage raised to what the job shows: whose fault, what happened, what to do.

An error that nobody put into words has a number, by which whoever runs the worker finds it in the worker's log: the
people whose job it is get no traceback of the server's.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable

from publisher.errors import PublisherError, RequestFault
from publisher.files.reading import is_of_the_machine
from publisher.jobs.transitions import Blame, Failure

#: whose errors tell of a service that is away, not of what was asked of us
_OF_SERVICES = {"sqlalchemy", "psycopg", "httpx", "httpx2", "httpcore", "kombu", "redis"}
_SHOWN_CHARACTERS = 300


def failure_of(error: Exception, stage: str | None, secrets: Iterable[str] = ()) -> Failure:
    """The request is to blame only where the code says so; everything else may go better the next time."""
    blame = Blame.REQUEST if isinstance(error, RequestFault) else Blame.INFRASTRUCTURE
    message, way_out = _words(error)
    known = isinstance(error, PublisherError) or _may_pass(error)
    return Failure(blame, stage, redacted(message, secrets), way_out, None if known else number_of(error))


def _words(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, PublisherError):
        return error.message, error.way_out
    # by name, since torch's OutOfMemoryError is to be known without importing torch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        way_out = "Take smaller batch_tokens or a shorter sequence_length, or a worker with more memory."
        return f"out of memory: {_first_line(error)}".rstrip(": "), way_out
    number = number_of(error)
    way_out = f"It is tried again by itself. Whoever runs the worker finds error {number} in its log."
    return f"an error that nobody foresaw: {type(error).__name__}: {_first_line(error)} (error {number})", way_out


def _first_line(error: Exception) -> str:
    """Libraries put whole stacks of their own into a message."""
    return (str(error).strip().splitlines() or [""])[0][:_SHOWN_CHARACTERS]


def _may_pass(error: Exception) -> bool:
    """Whether the same at the same place may well be gone the next time: disks, networks, memory."""
    service = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or is_of_the_machine(error) or service in _OF_SERVICES


def number_of(error: BaseException) -> str:
    """Eight hex digits, the same for the same type of error raised at the same place, whatever values it had."""
    places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return hashlib.sha256("\n".join([type(error).__qualname__, *places]).encode()).hexdigest()[:8]


def trace_of(error: Exception, secrets: Iterable[str] = ()) -> str | None:
    """For the worker's log: where an error came from that nobody put into words, with its number; None for one that
    speaks for itself."""
    if isinstance(error, PublisherError):
        return None
    return redacted(f"error {number_of(error)}\n{''.join(traceback.format_exception(error))}", secrets)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` without the tokens that an error of a library may quote."""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return text
