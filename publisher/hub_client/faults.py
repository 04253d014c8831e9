"""What went wrong with a Hub, in the words of the one exception tree: the only place that knows huggingface_hub's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx
import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from publisher.errors import CredentialFault, HubUnavailable, NotFound, PublisherError, RequestFault
from publisher.hub_client.patience import Unanswered, is_away, retry_after

_AGAIN = "Check the Hub's address and the network, then try again."
_TRUST = (
    "If its certificate is of an authority of your own, set SSL_CERT_FILE to that one's file, "
    "for every process of the service."
)


#: huggingface_hub speaks HTTP with httpx up to 1.33, and with httpx2 from 2.0 on
_UNANSWERED = (httpx.HTTPError, httpx2.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)


@dataclass(frozen=True)
class Asked:
    """What a Hub is asked for. `setting` is where the reader sets the token, `field` what in a request named it.

    `missing` is raised where there is no such repository or revision, `forbidden` where the token may not do it, and
    `fault` for what else the request is to blame for. `advice`: what helps where a token is refused, if not another
    `setting`.
    """

    repo_id: str
    endpoint: str | None
    setting: str
    kind: str = "repository"
    revision: str | None = None
    field: str | None = None
    fault: type[RequestFault] = RequestFault
    missing: type[PublisherError] = NotFound
    forbidden: type[PublisherError] | None = None
    advice: str | None = None

    @property
    def hub(self) -> str:
        """Its address, without a user and password: mirrors take those."""
        return re.sub(r"//[^/@]*@", "//", self.endpoint or constants.ENDPOINT)

    def __str__(self) -> str:
        return f"{self.kind} {self.repo_id} on {self.hub}"


@contextmanager
def hub_faults(asked: Asked) -> Iterator[None]:
    """Turn errors of huggingface_hub and its HTTP client into PublisherErrors that name the Hub and the repository.

    Tokens never appear in a message: of the Hub's own errors only the status and the server's sentence are passed on.
    """
    try:
        yield
    except HFValidationError as error:
        raise asked.missing(f"{asked.repo_id!r} is not a repository id: {error}.", field=asked.field) from error
    except HfHubHTTPError as error:
        raise _from_answer(error, asked) from error
    except _UNANSWERED as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _from_answer(error.__cause__, asked) from error
        what = _first_line(error) if isinstance(error, Unanswered) else f"{type(error).__name__}: {_first_line(error)}"
        raise HubUnavailable(
            f"the Hub {asked.hub} did not answer for {asked.repo_id}: {what}.",
            way_out=_TRUST if "CERTIFICATE_VERIFY_FAILED" in what else _AGAIN,
        ) from error


def _from_answer(error: HfHubHTTPError, asked: Asked) -> PublisherError:
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return asked.missing(
            f"{asked} has no revision {asked.revision!r}." if asked.revision else f"{asked} has not that revision.",
            field=asked.field and "revision",
            way_out="Name a branch, tag or commit.",
        )
    if isinstance(error, GatedRepoError):
        return asked.fault(
            f"{asked} is gated and there is no access to it.",
            field=asked.field,
            way_out=f"Ask for access and set {asked.setting} to a token that has it.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return asked.missing(
            f"there is no {asked}, or it is private.",
            field=asked.field,
            way_out=f"Check the name; for a private one set {asked.setting} to a token that may see it.",
        )
    if is_away(status):
        seconds = retry_after(error.response.headers)
        return HubUnavailable(
            f"the Hub answered {status} for {asked}: {said_by(error)}", way_out=_AGAIN, retry_after=seconds
        )
    refused = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    kind = CredentialFault if status == HTTPStatus.UNAUTHORIZED else (refused and asked.forbidden) or asked.fault
    return kind(
        f"the Hub refuses {asked} with {status}: {said_by(error)}",
        field=asked.field,
        way_out=(asked.advice or f"Set {asked.setting} to a token that may use it.") if refused else None,
    )


def said_by(error: HfHubHTTPError) -> str:
    """The server's sentence, without the tokens that it was sent: some quote them."""
    said = error.server_message or _first_line(error)
    for response in (error.response, *error.response.history):
        token = response.request.headers.get("authorization", "").rpartition(" ")[2]
        said = said.replace(token, "***") if token else said
    return said


def _first_line(error: Exception) -> str:
    """Without queries of URLs: those of upload and download links are signatures that open them."""
    return re.sub(r"\?[^\s'\"]+|(?<=//)[^/@\s]*@", "", (str(error).strip().splitlines() or [type(error).__name__])[0])
