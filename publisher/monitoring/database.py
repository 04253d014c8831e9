"""What the database knows, asked whenever Prometheus does: what happens in workers is told here as well."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from publisher.jobs import census
from publisher.jobs.census import Group, WorkerNumbers
from publisher.monitoring import declared
from publisher.monitoring.declared import Kind, Metric
from publisher.recipe.stages import Stage
from publisher.store import tallies, webhook_deliveries
from publisher.store.database import Database
from publisher.store.faults import why_away
from publisher.store.resources import count_by_state
from publisher.store.states import AttemptOutcome
from publisher.store.tallies import Part

_logger = logging.getLogger(__name__)

#: series that are told from the start, at 0: a counter that appears with its first failure has not risen, to Prometheus
_FROM_ZERO: dict[str, list[tuple[str, ...]]] = {
    tallies.PUBLICATIONS.name: [(outcome.value,) for outcome in AttemptOutcome],
    tallies.LEASES_EXPIRED.name: [],
    tallies.ATTEMPTS.name: [("succeeded", Stage.PUBLISH.value, "")],
}


class FromDatabase(Collector, ABC):
    """`collect` tells nothing while `is_there` says that the database is away: a scrape must not wait for it."""

    def __init__(self, database: Database, is_there: Callable[[], bool] = lambda: True) -> None:
        self._database, self._is_there = database, is_there

    def collect(self) -> Iterable[Family]:
        if not self._is_there():
            return []
        try:
            with self._database.read() as session:
                return list(self._families(session))
        except SQLAlchemyError as error:
            _logger.warning("metrics lack what the database knows: %s", why_away(error))
            return []

    @abstractmethod
    def _families(self, session: Session) -> Iterator[Family]: ...


class JobStates(FromDatabase):
    """Jobs by state: open to all."""

    def _families(self, session: Session) -> Iterator[Family]:
        family = declared.JOBS.gauge()
        for state, number in count_by_state(session).items():
            family.add_metric([state.value], number)
        yield family


class JobsAndWorkers(FromDatabase):
    """Everything else. `patience`: seconds after which a silent worker is gone."""

    def __init__(self, database: Database, patience: float, is_there: Callable[[], bool] = lambda: True) -> None:
        super().__init__(database, is_there)
        self._patience = patience

    def _families(self, session: Session) -> Iterator[Family]:
        yield from _of_queues(census.groups(session))
        yield from _of_workers(census.workers(session, self._patience))
        speed = declared.SPEED.gauge()
        for worker, tokens_per_second in census.alignment_speeds(session).items():
            speed.add_metric([worker], tokens_per_second)
        yield speed
        yield from _of_webhooks(session)
        yield from _of_tallies(tallies.read(session))


def _of_queues(groups: Sequence[Group]) -> Iterator[Family]:
    unfinished, queued, oldest = declared.UNFINISHED.gauge(), declared.QUEUED.gauge(), declared.OLDEST.gauge()
    by_state: Counter[tuple[str, str]] = Counter()
    for group in groups:
        by_state[group.queue, group.state.value] += group.jobs
        if group.waiting_for is not None:
            queued.add_metric([group.queue, group.waiting_for], group.jobs)
            oldest.add_metric([group.queue, group.waiting_for], group.oldest)
    for labels, number in by_state.items():
        unfinished.add_metric(labels, number)
    yield from (unfinished, queued, oldest)


def _of_workers(workers: Sequence[WorkerNumbers]) -> Iterator[Family]:
    number, age, disk = declared.WORKERS.gauge(), declared.HEARTBEAT.gauge(), declared.WORKER_DISK.gauge()
    alike = Counter((worker.kind, worker.capacity, worker.doing) for worker in workers)
    for labels, workers_of_them in alike.items():
        number.add_metric(labels, workers_of_them)
    for worker in workers:
        age.add_metric([worker.name, worker.kind, worker.capacity, worker.doing], worker.age)
        if worker.free_disk is not None:
            disk.add_metric([worker.name], worker.free_disk)
    yield from (number, age, disk)


def _of_webhooks(session: Session) -> Iterator[Family]:
    number, late = declared.WEBHOOKS.gauge(), declared.DELIVERY_LATE.gauge()
    for state, webhooks in webhook_deliveries.webhooks_by_health(session).items():
        number.add_metric([state], webhooks)
    late.add_metric([], webhook_deliveries.longest_due(session))
    yield from (number, late)


def _of_tallies(parts: Sequence[Part]) -> Iterator[Family]:
    found: dict[str, dict[tuple[str, ...], list[Part]]] = defaultdict(lambda: defaultdict(list))
    for part in parts:
        found[part.name][part.labels].append(part)
    for metric in declared.METRICS:
        if metric.series is not None:
            of_series = found[metric.series.name]
            yield _histogram(metric, of_series) if metric.kind is Kind.HISTOGRAM else _counter(metric, of_series)


def _counter(metric: Metric, found: dict[tuple[str, ...], list[Part]]) -> Family:
    assert metric.series is not None
    family = metric.counter()
    for labels in dict.fromkeys([*_FROM_ZERO[metric.series.name], *found]):
        family.add_metric(labels, sum(part.count for part in found.get(labels, ())))
    return family


def _histogram(metric: Metric, found: dict[tuple[str, ...], list[Part]]) -> Family:
    assert metric.series is not None
    family = metric.histogram()
    for labels, parts in found.items():
        buckets = [
            (str(float(bound)), float(sum(part.count for part in parts if _bound(part) <= bound)))
            for bound in metric.series.bounds
        ]
        everything = float(sum(part.count for part in parts))
        family.add_metric(labels, [*buckets, ("+Inf", everything)], sum_value=sum(part.total for part in parts))
    return family


def _bound(part: Part) -> float:
    """A bound that another version counted by falls into the next one that there is."""
    return inf if part.bucket is None else part.bucket
