"""`publisher jobs`: look at the runs that make variants, and steer them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from publisher.client import Client, calls
from publisher.client.commands.by_id import ending, showing, steering
from publisher.client.commands.options import list_options, service_options, some, whose_options
from publisher.client.follow import follow
from publisher.client.output import Column, Form, Item, Output, field, output_options, pairs, when


def _age(job: Item) -> str:
    """`0:12:05`, of one that has started and ended."""
    started, finished = job.get("started_at"), job.get("finished_at")
    return str(timedelta(seconds=round(finished - started))) if started and finished else ""


def _why(job: Item) -> str:
    """What a job that does not go on says."""
    said = job.get("failure") or job.get("waiting")
    return "" if said is None else " ".join(part for part in (said["message"], said.get("way_out")) if part)


COLUMNS = (
    Column("id", field("id")),
    Column("state", field("state")),
    Column("stage", field("stage")),
    Column("variant", field("variant_id")),
    Column("labels", pairs("labels")),
    Column("ordered", when("created_at")),
    Column("took", _age, right=True),
)
_LINES = (
    *COLUMNS,
    Column("why", _why),
    Column("attempt", field("attempt")),
    Column("worker", field("worker")),
    Column("place in the queue", field("queue_position")),
    Column("expected to start", when("expected_start")),
    Column("expected to end", when("expected_end")),
    Column("missing", field("missing_worker")),
)


@click.group()
def jobs() -> None:
    """List, watch and steer jobs."""


jobs.add_command(follow, "watch")


@jobs.command("list")
@click.option("--variant", "variant_id", metavar="ID", help="Only this variant's.")
@list_options
@whose_options
@service_options
@output_options
def list_(*, client: Client, output: Output, filters: dict[str, Any], most: int | None, variant_id: str | None) -> None:
    """List jobs, newest first."""
    found = some(client, calls.list_jobs, most, variant_id=variant_id, **filters)
    output.items(found, COLUMNS, nothing="No jobs. `publisher submit` orders a variant.")


@jobs.command()
@click.argument("id")
@click.option("--search", "q", metavar="TEXT", help="Only lines with this text, in any case.")
@click.option("--attempt", type=click.IntRange(min=1), help="Only this attempt's.")
@service_options
@output_options
def logs(*, client: Client, output: Output, id: str, q: str | None, attempt: int | None) -> None:
    """Print what a job has said so far."""
    if output.form is Form.HUMAN:
        return click.echo(client.download_log(id, q=q, attempt=attempt), nl=False)
    lines = client.every(calls.get_log, id, q=q, attempt=attempt)
    return output.items(lines, (), nothing="", named_by="message")


for _each in (
    showing(calls.get_job, _LINES, "Show a job, with its place in the queue and why it waits or failed."),
    steering("cancel", calls.cancel_job, COLUMNS, "Stop jobs for good: they publish nothing."),
    steering("pause", calls.pause_job, COLUMNS, "Stop jobs for now: they keep their place, and what they have saved."),
    steering("resume", calls.resume_job, COLUMNS, "Let paused jobs go on."),
    steering("retry", calls.retry_job, COLUMNS, "Queue failed or cancelled jobs again: finished stages are reused."),
    ending(
        "delete",
        calls.delete_job,
        "Forget jobs that have ended, with their events and logs. What they published stays.",
    ),
):
    jobs.add_command(_each)
