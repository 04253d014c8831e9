"""From what a stage raised to what the job shows: whose fault, what happened, what to do."""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from publisher.errors import PublisherError, RequestFault
from publisher.jobs.transitions import Blame, Failure


def failure_of(error: Exception, stage: str | None, secrets: Iterable[str] = ()) -> Failure:
    """The request is to blame only where the code says so; everything else may go better the next time."""
    blame = Blame.REQUEST if isinstance(error, RequestFault) else Blame.INFRASTRUCTURE
    message, way_out = _words(error)
    return Failure(blame, stage, redacted(message, secrets), way_out)


def _words(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, PublisherError):
        return error.message, error.way_out
    # by name, since torch's OutOfMemoryError is to be known without importing torch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        way_out = "Take smaller batch_tokens or a shorter sequence_length, or a worker with more memory."
        return f"out of memory: {error}".rstrip(": "), way_out
    return f"{type(error).__name__}: {error}", "It is tried again by itself; the job's log holds the traceback."


def trace_of(error: Exception, secrets: Iterable[str] = ()) -> str | None:
    """Where an error came from that nobody put into words; None for one that speaks for itself."""
    if isinstance(error, PublisherError):
        return None
    return redacted("".join(traceback.format_exception(error)), secrets)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` without the tokens that an error of a library may quote."""
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return text
