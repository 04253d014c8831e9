"""What went wrong with a Hub, in the words of the one exception tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from publisher.errors import InfrastructureFault, NotFound, PublisherError, RequestFault


@contextmanager
def hub_faults(repo_id: str, endpoint: str | None, *, setting: str) -> Iterator[None]:
    """Turn errors of huggingface_hub and its HTTP client into PublisherErrors that name the Hub and the repository.

    `setting` is where the reader sets the token. Tokens never appear in a message:
    of the Hub's own errors only the status and the server's sentence are passed on.
    """
    where = f"{repo_id} at {endpoint or constants.ENDPOINT}"
    try:
        yield
    except HfHubHTTPError as error:
        raise _from_answer(error, where, setting) from error
    except (httpx2.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _from_answer(error.__cause__, where, setting) from error
        raise InfrastructureFault(f"Hub not reachable for {where}: {_first_line(error)}") from error


def _from_answer(error: HfHubHTTPError, where: str, setting: str) -> PublisherError:
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return NotFound(f"{where} does not have that revision.")
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return NotFound(f"{where} does not exist, or {setting} may not see it.")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return RequestFault(
            f"The Hub refuses {where} with {status}: {_said(error)}",
            way_out=f"Set {setting} to a token that may use it.",
        )
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
        return InfrastructureFault(f"The Hub answered {status} for {where}: {_said(error)}")
    return RequestFault(f"The Hub refuses {where} with {status}: {_said(error)}")


def _said(error: HfHubHTTPError) -> str:
    return error.server_message or _first_line(error)


def _first_line(error: Exception) -> str:
    """Without queries of URLs: those of upload and download links are signatures that open them."""
    return re.sub(r"\?[^\s'\"]+", "", (str(error).strip().splitlines() or [type(error).__name__])[0])
