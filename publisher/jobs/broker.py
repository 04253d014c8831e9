"""Celery as both sides see it: the API sends by name, workers receive ids. JSON only, no result backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from publisher.errors import InfrastructureFault
from publisher.settings import Settings

RUN_JOB = "publisher.run_job"
#: the one queue that there was before: what is left in it is done, too
QUEUE = "publisher"


def sized_queue(name: str | None) -> str:
    """What the broker calls a queue of publisher.plan.queues."""
    return QUEUE if name is None else f"{QUEUE}-{name}"


def own_queue(worker: str) -> str:
    """The queue that this worker alone looks at: for a job that others might take the message of and be too small."""
    return f"{QUEUE}-at-{worker}"


def celery_queue(name: str) -> Queue:
    """By the broker's name for it, declared alike on both sides."""
    return Queue(name, Exchange(QUEUE, "direct"), routing_key=name)


def create_celery(settings: Settings) -> Celery:
    """A Celery app for the broker of these settings; connects when first used."""
    app = Celery("publisher", broker=_address(settings), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        # acknowledged at the end: a worker with one slot then holds one message, not one more in reserve that an
        # idle worker could run. A message that comes twice does no harm: only one claim wins.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(settings),
        worker_hijack_root_logger=False,
        worker_enable_remote_control=True,
    )
    return app


def _address(settings: Settings) -> str:
    # kombu warns of a missing host, though it needs none for files
    address = settings.resolved_broker_url
    return "filesystem://localhost" if address == "filesystem://" else address


def _transport_options(settings: Settings) -> dict[str, Any]:
    # kombu reads the first three for the connection that a sender opens: without them it tries for ever
    limits = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
    if not settings.broker_url.startswith("filesystem:"):
        return {**limits, "socket_connect_timeout": 2, "socket_keepalive": True}
    return {**limits, **_folders(settings.data_dir.absolute() / "broker")}


def _folders(root: Path) -> dict[str, Any]:
    """Both sides read and write one folder; kombu's defaults lie in the working directory."""
    try:
        for name in ("messages", "processed", "control"):
            (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InfrastructureFault(
            f"the broker's folder {root} cannot be made by user {os.geteuid()}: {error.strerror}.",
            way_out="Set PUBLISHER_DATA_DIR to a folder that this user may write to, or PUBLISHER_BROKER_URL.",
        ) from error
    return {
        "data_folder_in": str(root / "messages"),
        "data_folder_out": str(root / "messages"),
        "processed_folder": str(root / "processed"),
        "control_folder": str(root / "control"),
        "store_processed": False,
    }
