"""The worker's Celery application: celery -A worker.celery worker --pool threads --concurrency 1

The process never imports torch: it claims jobs and watches over the processes that run them.
"""

from __future__ import annotations

import logging
import secrets

from celery.apps.worker import Worker as CeleryWorker
from celery.signals import celeryd_init, setup_logging, worker_init, worker_ready, worker_shutdown
from celery.utils.nodenames import default_nodename

from publisher.jobs.broker import celery_queue, create_celery, own_queue, sized_queue
from publisher.logs.setup import configure
from publisher.settings import settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.private import keep_private
from publisher.store.starting import refuse_unusable, said_at_start
from publisher.tracing import spans
from worker.jobs.registration import Registration, measure
from worker.jobs.upkeep import collect_in_background

with said_at_start():
    app = create_celery(settings())
app.conf.imports = ("worker.tasks",)


def name_uniquely(instance: CeleryWorker, **_: object) -> None:
    """Two workers on one host would have one name, and the database one row for both, unless -n names them."""
    if instance.hostname == default_nodename(None):
        instance.hostname = f"{instance.hostname}-{secrets.token_hex(3)}"


def log_alike(loglevel: int | None = None, logfile: str | None = None, **_: object) -> None:
    """As every process of the service logs; Celery's own loggers keep the level that its command line says."""
    configure(settings(), "worker", file=logfile)
    logging.getLogger("celery").setLevel(loglevel or logging.WARNING)


def prepare(sender: CeleryWorker, **_: object) -> None:
    """Before the first message is taken, while nothing else disturbs the measurement."""
    spans.start("worker")
    # Celery logs what a signal's receiver raises and goes on; this worker could not run a single job
    with said_at_start():
        refuse_unusable(settings())
        keep_private(settings())
        migrate.prepare(settings())
        measured = measure(settings())
    name = str(sender.hostname)
    for queue in (own_queue(name), *map(sized_queue, measured.capacity(settings()).consumed)):
        sender.app.amqp.queues.select_add(celery_queue(queue))
    collect_in_background(Database(settings().resolved_database_url), settings())
    registration = Registration(Database(settings().resolved_database_url), settings(), name, measured)
    worker_ready.connect(lambda **_: registration.start(), weak=False)
    worker_shutdown.connect(lambda **_: registration.stop(), weak=False)


celeryd_init.connect(name_uniquely)
setup_logging.connect(log_alike)
worker_init.connect(prepare)
