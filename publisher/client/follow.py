"""`publisher follow`: watch a job until it ends."""

from __future__ import annotations

import click
from rich.console import Console

from publisher.client.job_progress import JobProgress
from publisher.client.rest import ServiceClient
from publisher.errors import RequestFault


@click.command()
@click.argument("job_id")
@click.option(
    "--url",
    envvar="PUBLISHER_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="of the service; or set PUBLISHER_URL",
)
@click.option("--key", envvar="PUBLISHER_API_KEY", required=True, help="API key; or set PUBLISHER_API_KEY")
def follow(job_id: str, url: str, key: str) -> None:
    """Show a job's stages and progress until it ends; exit 1 if it did not succeed."""
    with ServiceClient(url, key) as service:
        progress = JobProgress(Console())
        state = progress.show(service.follow(job_id, on_away=lambda why: _tell_away(service.url, why)))
    if state != "succeeded":
        failure = progress.failure or {}
        raise RequestFault(f"job {job_id} {state}: {failure.get('message', 'no reason given')}")
    click.echo(f"job {job_id} succeeded")


def _tell_away(url: str, why: str) -> None:
    click.echo(
        f"{url} is away ({why}); it is asked again for a minute. Another address: --url, PUBLISHER_URL.", err=True
    )
