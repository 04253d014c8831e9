"""Every type of event by its name. A new one is declared beside its like and named here once."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.errors import RequestFault, listed
from publisher.webhooks import job_event_types, trial_event, variant_event_types

EVENT_TYPES = (
    job_event_types.JOB_QUEUED,
    job_event_types.JOB_STARTED,
    job_event_types.JOB_RETRYING,
    job_event_types.JOB_WAITING,
    job_event_types.JOB_PAUSED,
    job_event_types.JOB_CANCELLED,
    job_event_types.JOB_SUCCEEDED,
    job_event_types.JOB_FAILED,
    variant_event_types.VARIANT_PUBLISHED,
    trial_event.WEBHOOK_TEST,
)
#: those that arise by themselves, in the register's order: what a webhook may subscribe to
SUBSCRIBABLE = tuple(each.name for each in EVENT_TYPES if each.arises is not None)


def subscribed(names: Iterable[str]) -> list[str]:
    """`names` in the register's order, each once. RequestFault for one that it lacks."""
    wanted = set(names)
    unknown = sorted(wanted - set(SUBSCRIBABLE))
    if unknown:
        raise RequestFault(
            f"there is no event {listed(map(repr, unknown), 'or')}.",
            field="events",
            way_out=f"There are {listed(SUBSCRIBABLE)}.",
        )
    return [name for name in SUBSCRIBABLE if name in wanted]
