"""`publisher admin reap`: one round of what every API process does every few seconds."""

from __future__ import annotations

from pathlib import Path

import click

from publisher.client.admin.place import chosen_settings, data_option, database_of
from publisher.jobs.reaper import Reaper


@click.command()
@data_option
def reap(data_dir: Path | None) -> None:
    """Take jobs from workers that are silent, and send those that wait and were not sent, now.

    Every API process does the same every PUBLISHER_REAPER_SECONDS: this is for when none runs, or to see what it does.

    \b
    Exit codes: 0 done; 1 the database is away; 3 the broker is, so that what should be sent waits.
    """
    chosen = chosen_settings(data_dir)
    with database_of(chosen) as database:
        reaper = Reaper(database, chosen)
        try:
            done = reaper.run_once()
        finally:
            reaper.close()
    for job_id, why, state in done.lost:
        click.echo(f"{job_id}: {why} It is {state} now.")
    for job_id, queue in done.sent.items():
        click.echo(f"{job_id}: sent to {queue}.")
    for worker in done.forgotten:
        click.echo(f"{worker}: not seen for a day; forgotten.")
    click.echo(f"{len(done.lost)} lost, {len(done.sent)} sent, {len(done.forgotten)} workers forgotten.")
    if done.unsent:
        click.echo(f"{len(done.unsent)} could not be sent: the broker does not answer. They wait.", err=True)
        raise click.exceptions.Exit(3)
