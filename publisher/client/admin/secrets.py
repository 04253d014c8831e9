"""`publisher admin secrets`: which secrets are in use, and values that lie sealed under the newest of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from sqlalchemy.orm import Session

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.errors import PublisherError
from publisher.settings import Settings
from publisher.store import hub_credentials, keys, sealed


class LostValues(PublisherError):
    """Sealed values that none of the secrets opens."""

    slug = "lost-values"
    title = "Sealed values cannot be opened"


@click.group()
def secrets() -> None:
    """Replace PUBLISHER_SECRET and PUBLISHER_ENCRYPTION_KEY; docs/credentials.md tells the steps.

    Secrets are shown by ids, which tell them apart and give nothing away.
    """


@secrets.command()
@data_option
def show(data_dir: Path | None) -> None:
    """Which secrets sign and seal, the newest first, and how many API keys and sealed values are under each."""
    with installation(data_dir) as at, at.database.read() as session:
        counted, known_keys = sealed.count_by_secret(session), keys.count_by_secret(session)
        lost = list(without_secret(session, at.settings))
    signing, sealing = at.settings.signing_secrets(), at.settings.sealing_secrets()
    newest, *older = (secret.id for secret in signing)
    click.echo(f"sign: {newest}  signs" + "".join(f", {id}  is accepted" for id in older))
    for secret in signing:
        click.echo(f"keys: {secret.id}  {known_keys[secret.id]} keys")
    for secret in sealing:
        click.echo(f"seal: {secret.id}  {counted[secret.id]} values")
    for line in lost:
        click.echo(line)


def without_secret(session: Session, chosen: Settings) -> Iterator[str]:
    """A line for every secret that keys or sealed values need and the settings lack."""
    signing = {secret.id for secret in chosen.signing_secrets()} | {""}  # keys of before there were digests with one
    for id, count in sorted(keys.count_by_secret(session).items()):
        if id not in signing:
            yield f"keys: {id}  {count} keys, which open nothing: this secret is not among the settings"
    sealing = {secret.id for secret in chosen.sealing_secrets()}
    for id, count in sorted(sealed.count_by_secret(session).items()):
        if id not in sealing:
            yield f"seal: {id}  {count} values, and this secret is not among the settings"


@secrets.command()
@data_option
def rotate(data_dir: Path | None) -> None:
    """Seal every stored value under the newest secret, so that older ones can be taken away."""
    with installation(data_dir) as at, at.database.write() as session:
        keyring = at.settings.sealing_secrets()
        done = sealed.reseal(session, keyring)
    click.echo(f"{done.values} values were sealed under {keyring.newest.id}; {done.others} were already.")
    if done.lost:
        raise LostValues(
            f"none of the secrets opens what tenants {', '.join(done.lost)} have sent.",
            way_out=f"Add the secret that it is sealed under (publisher admin secrets show), or have them send it "
            f"again ({hub_credentials.PUT}; POST /v1/webhooks/{{id}}/rotate-secret).",
        )
