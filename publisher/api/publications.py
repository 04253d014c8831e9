"""Taking back what a variant published: only what its own commit put there, and only while nobody has built on it.

Every step finds out how far an earlier one came: killed in between, the same request again finishes.
"""

from __future__ import annotations

from collections.abc import Collection

from huggingface_hub import CommitOperationDelete, HfApi
from sqlalchemy.orm import Session

from publisher.errors import Conflict, RequestFault
from publisher.hub.faults import RepositoryMissing, RevisionMissing, StaleParent
from publisher.hub.names import RepositoryId
from publisher.hub.references import DEFAULT_BRANCH, ReferenceKind
from publisher.hub.repositories import Repository
from publisher.hub.storage import HubStorage
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.guard import public_only
from publisher.manifest.reports import Publication
from publisher.settings import Settings
from publisher.store.deletion import refuse_used
from publisher.store.hub_credentials import PUT, OpenedCredential
from publisher.store.models import Variant
from publisher.store.resources import published_to

_KEEP = "DELETE with ?publication=keep leaves what is on the Hub as it is."


def refuse_shared(session: Session, variant: Variant, publication: Publication) -> None:
    """Conflict if other variants' checkpoint is the same commit: one that was there already is not published again."""
    others = published_to(session, variant.tenant_id, publication.repo_id)
    same = [row.id for row in others if row.id != variant.id and _is_at(row, publication)]
    refuse_used(f"{publication.repo_id} at {publication.commit}", same)


def _is_at(row: Variant, publication: Publication) -> bool:
    return row.publication is not None and Publication.model_validate(row.publication).commit == publication.commit


def withdraw(
    settings: Settings,
    hub: HubStorage | None,
    publication: Publication,
    paths: Collection[str],
    own: OpenedCredential | None,
) -> None:
    """`own`: the tenant's Hub, if that is where it was published.

    Delete the embedded Hub's repository; on another Hub, the files at `paths` by one commit.

    Conflict where the repository has moved on, holds what others put there, or cannot be looked at.
    """
    if own is not None:
        with public_only(unless=settings.allow_private_addresses):
            _delete_files(publication, paths, own.write_token, f"your write token ({PUT})")
    elif hub is not None and settings.is_embedded_hub(publication.endpoint):
        _delete_repository(hub, publication, paths)
    elif settings.hub_token is not None and publication.endpoint == settings.resolved_hub_endpoint:
        _delete_files(publication, paths, settings.hub_token.get_secret_value(), "PUBLISHER_HUB_TOKEN")
    else:
        raise Conflict(
            f"{publication.repo_id} was published to {publication.endpoint}, where this service publishes no more.",
            way_out=_KEEP,
        )


def _delete_repository(hub: HubStorage, publication: Publication, paths: Collection[str]) -> None:
    id = RepositoryId.parse(publication.repo_id)
    try:
        repository = hub.open_repository(id)
        repository.commit_id(publication.commit)
    except (RepositoryMissing, RevisionMissing):
        return  # deleted before; a repository that was made since under this name never held it
    _refuse_built_on(repository, publication, paths)
    try:
        hub.delete_repository(id, head=publication.commit)
    except RepositoryMissing:
        return
    except StaleParent as error:
        raise _moved_on(publication, "another commit") from error


def _refuse_built_on(repository: Repository, publication: Publication, paths: Collection[str]) -> None:
    branches = repository.reference_commits(ReferenceKind.BRANCH)
    if branches.pop(DEFAULT_BRANCH, None) != publication.commit:
        raise _moved_on(publication, "another commit")
    named = [*branches, *repository.reference_commits(ReferenceKind.TAG)]
    head, *earlier = repository.history(publication.commit)
    others = sorted(head.files.keys() - set(paths))
    before = [commit.id for commit in earlier if commit.files]
    for kind, found in (("branch or tag", named), ("file", others), ("earlier commit", before)):
        if found:
            raise _moved_on(publication, f"{kind} {found[0]}" + (f" and {len(found) - 1} more" if found[1:] else ""))


def _delete_files(publication: Publication, paths: Collection[str], token: str, setting: str) -> None:
    api = HfApi(endpoint=publication.endpoint, token=token, library_name="loram-publisher")
    asked = Asked(publication.repo_id, publication.endpoint, setting, fault=Conflict, missing=Conflict)
    with hub_faults(asked):
        head = api.model_info(publication.repo_id)
        ours = {sibling.rfilename for sibling in head.siblings or []} & set(paths)
        if not ours:
            return  # deleted before
        if head.sha != publication.commit:
            raise _moved_on(publication, f"commit {head.sha}")
        api.create_commit(
            publication.repo_id,
            [CommitOperationDelete(path) for path in sorted(ours)],
            commit_message="Take back LoRAM checkpoint",
            parent_commit=head.sha,
        )


def _moved_on(publication: Publication, what: str) -> RequestFault:
    return Conflict(
        f"{publication.repo_id} holds more than commit {publication.commit}, which this variant published: {what}.",
        way_out=f"Look at it, and delete by hand what is to go. {_KEEP}",
    )
