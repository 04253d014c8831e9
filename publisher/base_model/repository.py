"""The files of a model repository on a Hub at one commit, read by ranges."""

from __future__ import annotations

from typing import Self

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from publisher.base_model.files import is_in_place
from publisher.errors import InfrastructureFault, UnsupportedModel
from publisher.hub_client.faults import Asked, hub_faults

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
        with hub_faults(_asked(repo_id, revision, api.endpoint)):
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
        with hub_faults(_asked(self._repo_id, self.commit, self._endpoint)):
            response = get_session().get(url, headers=headers, timeout=_SECONDS, follow_redirects=True)
            hf_raise_for_status(response)
        if len(response.content) != end - start:
            raise InfrastructureFault(
                f"{self._endpoint} sent {len(response.content)} bytes of {name}; {end - start} were asked for.",
                way_out="The Hub must answer range requests.",
            )
        return response.content


def _asked(repo_id: str, revision: str | None, endpoint: str) -> Asked:
    return Asked(
        repo_id,
        endpoint,
        "PUBLISHER_BASE_MODEL_TOKEN",
        kind="model repository",
        revision=revision,
        field="repo_id",
        fault=UnsupportedModel,
        missing=UnsupportedModel,
    )
