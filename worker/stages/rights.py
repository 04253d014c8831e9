"""Whether a job may publish where it is to, asked before anything is computed; nothing is left behind at the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo

from publisher.errors import CredentialFault, RequestFault
from publisher.hub_client.faults import said_by
from publisher.hub_client.repo_id import check_repo_id
from worker.request import PublishTarget
from worker.stages.publication import asked_of, hub_api, talking_to

_FIELD = "publish.repo_id"


def check_rights(target: PublishTarget) -> None:
    """Raises CredentialFault for a token that the Hub does not know or that only reads, RequestFault for a repository
    or namespace that is not for this token and for a public repository where a private one was asked for,
    HubUnavailable if the Hub does not answer."""
    check_repo_id(target.repo_id)
    api = hub_api(target)
    with talking_to(target, replace(asked_of(target), field=_FIELD, advice=None)):
        try:
            found = _found(api, target)
            _may_write(api, target, exists=found is not None)
        except HfHubHTTPError as error:
            if error.response.status_code == HTTPStatus.FORBIDDEN and not isinstance(error, GatedRepoError):
                raise _not_theirs(target, error.server_message and said_by(error)) from error
            if error.response.status_code == HTTPStatus.UNAUTHORIZED:
                raise _unknown(target) from error
            raise
    if found is not None:
        refuse_public(target, found)


def refuse_public(target: PublishTarget, head: ModelInfo) -> None:
    """Raises RequestFault if the repository shows to everybody what was to be private."""
    if target.private and not head.private:
        raise RequestFault(
            f"{target.repo_id} exists and is public; the checkpoint was to be private.",
            field="publish.private",
            way_out="Make the repository private, or publish to another.",
        )


def _found(api: HfApi, target: PublishTarget) -> ModelInfo | None:
    try:
        return api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        return None


def _may_write(api: HfApi, target: PublishTarget, *, exists: bool) -> None:
    try:
        if exists or target.embedded:
            api.auth_check(target.repo_id, write=True)
        else:
            _may_create(target, api.whoami())
    except RepositoryNotFoundError:
        if exists:
            raise
    except HfHubHTTPError as error:
        # a Hub that does not know the question
        if error.response.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
            raise


def _may_create(target: PublishTarget, account: Mapping[str, Any]) -> None:
    """By what the Hub says of the token's owner; what it does not say is no reason to refuse."""
    token = (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise CredentialFault(f"the token for {target.endpoint} may only read.", way_out=target.advice)
    namespaces = {org.get("name"): org.get("roleInOrg") for org in account.get("orgs") or []}
    namespace = target.repo_id.partition("/")[0]
    if "name" not in account or namespace == account["name"]:
        return
    if namespace not in namespaces or namespaces[namespace] == "read":
        others = ", ".join(sorted(name for name, role in namespaces.items() if name and role != "read"))
        raise _not_theirs(target, f"its token writes to {account['name']}{', ' if others else ''}{others}")


def _not_theirs(target: PublishTarget, said: str | None) -> RequestFault:
    return RequestFault(
        f"nothing may be published to {target.repo_id} on {target.endpoint}: {said or 'the Hub forbids it'}",
        field=_FIELD,
        way_out="Ask for the variant again with another publish.repo_id, or have its owner grant the right and retry.",
    )


def _unknown(target: PublishTarget) -> CredentialFault:
    return CredentialFault(f"{target.endpoint} does not accept the token of this job.", way_out=target.advice)
