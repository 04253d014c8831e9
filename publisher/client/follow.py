"""`publisher follow`, `publisher jobs watch`: a job until it ends."""

from __future__ import annotations

import click

from publisher.client import Client
from publisher.client.commands.options import service_options
from publisher.client.exit_codes import Exit
from publisher.client.output import say
from publisher.errors import PublisherError


class JobEnded(PublisherError):
    """A job that was watched has not succeeded."""


@click.command()
@click.argument("job_id")
@service_options
def follow(client: Client, job_id: str) -> None:
    """Show a job's stages and progress until it ends; exit 1 if it did not succeed.

    Ctrl-C stops watching, not the job.
    """
    watch(client, job_id)
    click.echo(f"job {job_id} succeeded")


def watch(client: Client, job_id: str) -> None:
    """Until the job has succeeded. Raises JobEnded if it ends otherwise; ends the process at Ctrl-C."""
    from rich.console import Console

    from publisher.client.job_progress import JobProgress

    progress = JobProgress(Console())
    try:
        state = progress.show(client.follow_job(job_id, on_away=lambda why: _tell_away(client.url, why)))
    except KeyboardInterrupt:
        say(f"\nJob {job_id} goes on. `publisher follow {job_id}` comes back to it.")
        raise SystemExit(Exit.STOPPED) from None
    if state != "succeeded":
        failure = progress.failure or {}
        raise JobEnded(f"job {job_id} {state}: {failure.get('message', 'no reason given')}")


def _tell_away(url: str, why: str) -> None:
    say(f"{url} is away ({why}); it is asked again for a minute. Another address: --url, PUBLISHER_URL.")
