"""A commit at a Hub: whether it was made, and whether what lies there is what was sent. Needs no file of the job's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import takewhile

from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

from publisher import __version__
from publisher.errors import InfrastructureFault
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.guard import public_only
from publisher.jobs.publishing import Intent
from publisher.manifest.manifest import FileRecord
from worker.request import PublishTarget
from worker.transfer.uploads import OnBytes, received, received_record


class PublishedOtherwise(InfrastructureFault):
    """The commit is at the Hub, which gives back something else than was sent."""


def hub_api(target: PublishTarget) -> HfApi:
    return HfApi(
        endpoint=target.endpoint, token=target.token, library_name="loram-publisher", library_version=__version__
    )


@contextmanager
def talking_to(target: PublishTarget, asked: Asked | None = None) -> Iterator[None]:
    """With the Hub: its faults in our words, and where a tenant named it at public addresses alone."""
    with public_only(unless=not target.public_only), hub_faults(asked or asked_of(target)):
        yield


def asked_of(target: PublishTarget) -> Asked:
    return Asked(target.repo_id, target.endpoint, target.setting, advice=target.advice)


@dataclass(frozen=True)
class Standing:
    """`commit`: the one that was intended; None if it was not made. `final`: nor can it be made any more."""

    commit: str | None
    final: bool


def standing(api: HfApi, intent: Intent) -> Standing:
    """Ask the Hub whether the intended commit was made, by its mark: others may have committed on top of it.

    It names its parent: where that is not the head any more, and this commit is not there, it cannot arrive either.
    """
    try:
        commits = api.list_repo_commits(intent.repo_id)
    except RepositoryNotFoundError:
        return Standing(None, final=False)
    since = list(takewhile(lambda commit: commit.commit_id != intent.parent, commits))
    made = next((commit.commit_id for commit in since if intent.mark in commit.message), None)
    return Standing(made, final=bool(since))


def fence(api: HfApi, intent: Intent) -> None:
    """Wait until the embedded Hub has done what it was asked before, for this repository.

    A commit of nothing is made by nobody else at the same time, and changes nothing. What was sent under a token that
    was over before then is refused, so whatever `standing` says afterwards stays so.
    """
    header = {"summary": "Nothing", "parentCommit": intent.parent}
    response = get_session().post(
        f"{api.endpoint}/api/models/{intent.repo_id}/commit/main",
        headers=build_hf_headers(token=api.token) | {"Content-Type": "application/x-ndjson"},
        content=json.dumps({"key": "header", "value": header}),
    )
    if response.status_code not in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_FOUND):
        hf_raise_for_status(response)


def differing_bytes(
    api: HfApi, repo_id: str, commit: str, files: Mapping[str, FileRecord], on_bytes: OnBytes
) -> list[str]:
    """Read every byte of every file of a commit; one phrase for each that came back otherwise."""
    problems = []
    for name, facts in files.items():
        found = received_record(received(api, repo_id, name, commit), on_bytes)
        if found != facts:
            problems.append(f"{name} came back with {found.size} bytes, sha256 {found.sha256}")
    return problems


def refuse_otherwise(repo_id: str, commit: str, problems: list[str]) -> None:
    """Raises PublishedOtherwise if there are problems."""
    if problems:
        raise PublishedOtherwise(
            f"{repo_id} at {commit} is not what was sent: {'; '.join(problems)}.",
            way_out="Try again; if it repeats, the Hub's storage or a proxy changes files.",
        )
