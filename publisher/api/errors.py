"""One answer for everything that goes wrong: problem details (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DatabaseError, DataError, SQLAlchemyError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from publisher.errors import PublisherError, RequestFault
from publisher.hub.request_ids import HEADER
from publisher.recipe.invalid_fields import InvalidField, invalid_fields
from publisher.store.database import Database
from publisher.store.faults import OUR_OWN, database_fault
from publisher.store.origin import current_request_id

MEDIA_TYPE = "application/problem+json"
_logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """Problem details. `detail` says what is wrong and what would be right, `errors` where in the body."""

    type: str = Field(examples=["urn:loram:problem:invalid-request"], description="kind of problem")
    title: str = Field(examples=["Invalid request"], description="the kind in words")
    status: int = Field(examples=[422], description="of the answer")
    detail: str = Field(description="what is wrong, and what would be right")
    instance: str = Field(description="path of the request")
    errors: list[InvalidField] = Field(default=[], description="each wrong field of the body, path, query or headers")


def add_handlers(app: FastAPI) -> None:
    app.add_exception_handler(PublisherError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.add_exception_handler(HTTPException, _refuse_unknown)
    for unstorable in (DataError, UnicodeEncodeError):
        app.add_exception_handler(unstorable, _refuse_characters)
    for unreachable in (DatabaseError, TimeoutError):
        app.add_exception_handler(unreachable, _report_database)
    app.add_exception_handler(Exception, _report_bug)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of an endpoint: these statuses come as problem details."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def problem(path: str, fault: PublisherError, errors: list[InvalidField] | None = None) -> JSONResponse:
    """`path` of the request that is refused. A fault that knows when to come again (`retry_after`, seconds) says so."""
    wait = fault.retry_after
    return _answer(
        path,
        fault.status,
        slug=fault.slug,
        title=fault.title,
        detail=str(fault),
        errors=errors or [],
        headers=None if wait is None else {"Retry-After": str(ceil(wait))},
    )


def _answer(
    path: str,
    status: int,
    *,
    slug: str,
    title: str,
    detail: str,
    errors: list[InvalidField],
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body = Problem(
        type=f"urn:loram:problem:{slug}", title=title, status=status, detail=detail, instance=path, errors=errors
    )
    extra = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    return JSONResponse(
        body.model_dump(), status_code=status, media_type=MEDIA_TYPE, headers={**extra, **(headers or {})}
    )


def _refuse(request: Request, error: Exception) -> Response:
    fault = cast(PublisherError, error)
    errors = [InvalidField(field=fault.field, message=str(fault))] if fault.field else []
    return problem(request.url.path, fault, errors)


def _refuse_invalid(request: Request, error: Exception) -> Response:
    found = invalid_fields(cast(RequestValidationError, error).errors())
    detail = "; ".join(f"{entry.field}: {entry.message}" for entry in found[:5])
    return problem(request.url.path, RequestFault(detail), found)


def _refuse_unknown(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    status = HTTPStatus(http.status_code)
    detail = f"{request.method} {request.url.path}: {http.detail}."
    slug = status.phrase.lower().replace(" ", "-")
    return _answer(
        request.url.path, status, slug=slug, title=status.phrase, detail=detail, errors=[], headers=http.headers
    )


def _refuse_characters(request: Request, error: Exception) -> Response:
    fault = RequestFault("the request holds a character that is no text: NUL, or half of a surrogate pair.")
    return problem(request.url.path, fault)


def _report_database(request: Request, error: Exception) -> Response:
    if isinstance(error, OUR_OWN):
        raise error
    _logger.error("the database refuses %s %s: %s", request.method, request.url.path, error)
    database = cast(Database, request.app.state.service.database)
    return problem(request.url.path, database_fault(cast(SQLAlchemyError, error), database.engine.url))


def _report_bug(request: Request, error: Exception) -> Response:
    # the server logs the traceback; it may name paths and data, which are nobody's business outside
    answer = problem(request.url.path, PublisherError("Something went wrong inside the service; it has been logged."))
    # it is sent from outside of every middleware
    answer.headers[HEADER] = current_request_id.get() or ""
    return answer
