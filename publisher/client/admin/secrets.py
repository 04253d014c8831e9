"""`publisher admin secrets`: which secrets are in use, and values that lie sealed under the newest of them."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.errors import PublisherError
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
    chosen = at.settings
    click.echo(f"sign: {', '.join(secret.id for secret in chosen.signing_secrets())}")
    for id in [secret.id for secret in chosen.signing_secrets()]:
        click.echo(f"keys: {id}  {known_keys.pop(id, 0)} keys")
    known_keys.pop("", None)  # known without a secret: they come under the newest when they are used
    for id, count in sorted(known_keys.items()):
        click.echo(f"keys: {id}  {count} keys, which open nothing: this secret is not among the settings")
    known = [secret.id for secret in chosen.sealing_secrets()]
    for id in known:
        click.echo(f"seal: {id}  {counted.pop(id, 0)} values")
    for id, count in sorted(counted.items()):
        click.echo(f"seal: {id}  {count} values, and this secret is not among the settings")


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
