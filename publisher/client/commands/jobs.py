"""`publisher jobs`: look at the runs that make variants, and steer them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from publisher.client import Client, calls
from publisher.client.call import Call
from publisher.client.commands.options import list_options, service_options, some, sure, yes_option
from publisher.client.follow import follow
from publisher.client.output import Column, Form, Item, Output, field, output_options, pairs, say, when
from publisher.store.states import JobState


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
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([state.value for state in JobState]),
    help="Only these states; may be repeated.",
)
@click.option("--variant", "variant_id", metavar="ID", help="Only this variant's.")
@click.option("--base-model", "base_model_id", metavar="ID", help="Only of this base model.")
@click.option("--repo", "repo_id", metavar="ORG/NAME", help="Only of this repository.")
@click.option("--sweep", "sweep_id", metavar="ID", help="Only of this sweep.")
@list_options
@service_options
@output_options
def list_(
    *,
    client: Client,
    output: Output,
    filters: dict[str, Any],
    most: int | None,
    state: tuple[str, ...],
    **whose: str | None,
) -> None:
    """List jobs, newest first."""
    found = some(client, calls.list_jobs, most, state=list(state) or None, **whose, **filters)
    output.items(found, COLUMNS, nothing="No jobs. `publisher submit` orders a variant.")


@jobs.command()
@click.argument("id")
@service_options
@output_options
def show(client: Client, output: Output, id: str) -> None:
    """Show a job, with its place in the queue and why it waits or failed."""
    output.item(client.get_job(id), _LINES)


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


@jobs.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@yes_option
@service_options
def delete(client: Client, ids: tuple[str, ...], yes: bool) -> None:
    """Forget jobs that have ended, with their events and logs. What they published stays."""
    sure(f"Forget {', '.join(ids)}", yes=yes)
    for id in ids:
        client.delete_job(id)
        say(f"{id} is forgotten.")


def _steering(name: str, build: Callable[[str], Call[Any]], words: str) -> click.Command:
    """A command that asks the same of each job."""

    @click.argument("ids", nargs=-1, required=True, metavar="ID...")
    @service_options
    @output_options
    def steer(client: Client, output: Output, ids: tuple[str, ...]) -> None:
        output.items((client.send(build(id)) for id in ids), COLUMNS, nothing="")

    return click.command(name, help=words)(steer)


for _each in (
    _steering("cancel", calls.cancel_job, "Stop jobs for good: they publish nothing."),
    _steering("pause", calls.pause_job, "Stop jobs for now: they keep their place, and what they have saved."),
    _steering("resume", calls.resume_job, "Let paused jobs go on."),
    _steering("retry", calls.retry_job, "Queue failed or cancelled jobs again: finished stages are reused."),
):
    jobs.add_command(_each)
