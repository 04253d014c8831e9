"""`publisher workers`: who computes."""

from __future__ import annotations

import click

from publisher.client import Client
from publisher.client.commands.options import service_options
from publisher.client.output import Column, Output, field, output_options, when

_COLUMNS = (
    Column("id", field("id")),
    Column("state", field("state")),
    Column("device", field("device")),
    Column("memory", lambda worker: f"{worker['memory_bytes'] / 2**30:.1f} GiB", right=True),
    Column("devices", field("devices"), right=True),
    Column("speed", lambda worker: f"{worker['flops_per_second'] / 1e12:.2f} TFLOP/s", right=True),
    Column("queues", lambda worker: ", ".join(worker["queues"])),
    Column("seen", when("seen_at")),
)


@click.command()
@service_options
@output_options
def workers(client: Client, output: Output) -> None:
    """List workers that were seen within a day."""
    output.items(client.list_workers()["items"], _COLUMNS, nothing="No workers: jobs wait for one.")
