"""Refusals in the Hub's own format: JSON `{"error": …}` with X-Error-Code and X-Error-Message."""

from __future__ import annotations

import logging
import re
from typing import cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from publisher.errors import PublisherError
from publisher.hub.faults import EntryMissing, RepositoryMissing, RevisionMissing

_logger = logging.getLogger(__name__)


def add_handlers(app: FastAPI) -> None:
    app.add_exception_handler(PublisherError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_unknown)
    app.add_exception_handler(ClientDisconnect, _note_disconnect)


def _refuse(request: Request, error: Exception) -> Response:
    fault = cast(PublisherError, error)
    answer = refusal(fault.status, str(fault), _client_code(fault))
    if isinstance(fault, EntryMissing) and fault.commit is not None:
        answer.headers["X-Repo-Commit"] = fault.commit
    return answer


def refusal(status: int, message: str, code: str | None = None) -> JSONResponse:
    """`code` is one of those that `huggingface_hub` knows: RepoNotFound, RevisionNotFound, EntryNotFound."""
    # A header is one line of what can be printed, or nothing is sent at all; the body has the message in full.
    line = re.sub(r"[^ -~]", lambda found: ascii(found[0])[1:-1], " ".join(message.split()))
    headers = {"X-Error-Message": line}
    if code is not None:
        headers["X-Error-Code"] = code
    if status >= 500:
        # it can be right again at the next request
        headers["Cache-Control"] = "no-store"
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def _client_code(fault: PublisherError) -> str | None:
    known = (RepositoryMissing, RevisionMissing, EntryMissing)
    return fault.slug if isinstance(fault, known) else None


def _refuse_invalid(request: Request, error: Exception) -> Response:
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in cast(RequestValidationError, error).errors()
    ]
    return refusal(400, "The request cannot be read. " + "; ".join(problems))


def _refuse_unknown(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    if http.status_code != 404:
        return refusal(http.status_code, f"{request.method} {request.url.path}: {http.detail}.")
    return refusal(404, f"This Hub does not know {request.method} {request.url.path}. It keeps models only.")


def _note_disconnect(request: Request, error: Exception) -> Response:
    # Nobody reads this answer; without it the server would log a traceback for every aborted upload.
    _logger.info("client went away during %s %s", request.method, request.url.path)
    return Response(status_code=400)
