"""The files of a model repository on a Hub at one commit, read by ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from publisher.base_model.files import is_in_place
from publisher.errors import InfrastructureFault, UnsupportedModel

_SECONDS = 20.0


class HubFiles:
    """One commit of a repository. `where` names it for people."""

    def __init__(self, info: ModelInfo, commit: str, endpoint: str, token: str | None) -> None:
        self.commit = commit
        self.where = f"{info.id} at {commit[:12]}"
        self._repo_id, self._endpoint, self._token = info.id, endpoint, token
        self._sizes = {file.rfilename: file.size or 0 for file in info.siblings or [] if is_in_place(file.rfilename)}

    @classmethod
    def resolve(cls, repo_id: str, revision: str | None, endpoint: str | None, token: str | None) -> Self:
        """Pin `revision` to the commit that it points to now."""
        api = HfApi(endpoint=endpoint, token=token or False)
        with _refusals(repo_id, revision, api.endpoint):
            info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=_SECONDS)
        if info.sha is None:
            raise UnsupportedModel(f"repository {repo_id} on {api.endpoint} has no commit.", field="repo_id")
        return cls(info, info.sha, api.endpoint, token)

    def sizes(self) -> dict[str, int]:
        return self._sizes

    def read(self, name: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        url = hf_hub_url(self._repo_id, name, revision=self.commit, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._token or False) | {"range": f"bytes={start}-{end - 1}"}
        with _refusals(self._repo_id, self.commit, self._endpoint):
            response = get_session().get(url, headers=headers, timeout=_SECONDS, follow_redirects=True)
            hf_raise_for_status(response)
        if len(response.content) != end - start:
            raise InfrastructureFault(
                f"{self._endpoint} sent {len(response.content)} bytes of {name}; {end - start} were asked for.",
                way_out="The Hub must answer range requests.",
            )
        return response.content


@contextmanager
def _refusals(repo_id: str, revision: str | None, endpoint: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into the publisher's own errors."""
    try:
        yield
    except HFValidationError as error:
        raise UnsupportedModel(f"{repo_id!r} is not a repository id: {error}.", field="repo_id") from error
    except GatedRepoError as error:
        raise UnsupportedModel(
            f"repository {repo_id} on {endpoint} is gated and this service has no access.",
            field="repo_id",
            way_out="Ask for access and set PUBLISHER_BASE_MODEL_TOKEN.",
        ) from error
    except RepositoryNotFoundError as error:
        raise UnsupportedModel(
            f"there is no model repository {repo_id} on {endpoint}, or it is private.",
            field="repo_id",
            way_out="Check the name; for a private one set PUBLISHER_BASE_MODEL_TOKEN.",
        ) from error
    except RevisionNotFoundError as error:
        raise UnsupportedModel(
            f"repository {repo_id} on {endpoint} has no revision {revision!r}.",
            field="revision",
            way_out="Name a branch, tag or commit.",
        ) from error
    except RemoteEntryNotFoundError as error:
        raise UnsupportedModel(f"repository {repo_id} on {endpoint} lacks a file it lists: {error}.") from error
    except (HfHubHTTPError, httpx2.TransportError, OfflineModeIsEnabled) as error:
        raise InfrastructureFault(
            f"the Hub {endpoint} did not answer for {repo_id}: {type(error).__name__}: {error}.",
            way_out="Check PUBLISHER_BASE_MODEL_ENDPOINT and the network, then try again.",
        ) from error
