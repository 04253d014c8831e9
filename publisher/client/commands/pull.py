"""`publisher pull`: a variant's checkpoint in a folder, every file compared with the manifest."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from publisher.client import Client, calls
from publisher.client.commands.options import service_options
from publisher.client.output import say
from publisher.client.types import Publication
from publisher.client.verify import verification_of
from publisher.errors import Conflict, InfrastructureFault, NotFound

_AGAIN = "Give the same command again: what is damaged is fetched anew."


@click.command()
@click.argument("variant", metavar="VARIANT_ID|ORG/NAME")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@service_options
def pull(client: Client, variant: str, folder: Path) -> None:
    """Fetch what a variant published into FOLDER, and check every file.

    A fetch that was stopped goes on where it was when the same command is given again.
    """
    found = client.get_variant(variant if "/" not in variant else variant_named(client, variant))
    publication = found["publication"]
    if publication is None:
        state = "has no job" if found["job"] is None else f"has a job that is {found['job']['state']}"
        raise Conflict(f"{found['id']} is not published: it {state}.", way_out="`publisher jobs list` shows why.")
    fetch(publication, folder, own_key(client, publication["endpoint"]))
    files = verified(folder)
    say(f"{publication['repo_id']} at {publication['commit']}: all {files} files are as they were published")
    click.echo(str(folder))


def variant_named(client: Client, repo_id: str) -> str:
    """The newest that was published to a repository of this name."""
    for found in client.every(calls.list_variants, repo_id=repo_id):
        if found["publication"] is not None:
            return found["id"]
    raise NotFound(f"no variant is published as {repo_id}.", way_out="`publisher variants list` shows those there are.")


def own_key(client: Client, endpoint: str) -> str | None:
    """The service's key for the Hub that is built into it, which takes it for private repositories. Another Hub is
    asked with the token that huggingface_hub knows: it has no business with this key."""
    return client.key if urlsplit(endpoint).hostname == urlsplit(client.url).hostname else None


def fetch(publication: Publication, folder: Path, token: str | None) -> None:
    from huggingface_hub import snapshot_download

    from publisher.hub_client.faults import Asked, hub_faults

    repo_id, endpoint, commit = publication["repo_id"], publication["endpoint"], publication["commit"]
    with hub_faults(Asked(repo_id, endpoint, "HF_TOKEN", revision=commit)):
        snapshot_download(repo_id, revision=commit, endpoint=endpoint, local_dir=folder, token=token)


def verified(folder: Path) -> int:
    """How many files there are. InfrastructureFault names those that are not as the manifest says."""
    found = verification_of(folder)
    if found.problems:
        raise InfrastructureFault(f"{folder} is not what was published: {' '.join(found.problems)}", way_out=_AGAIN)
    return found.files
