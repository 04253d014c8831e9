"""Events of variants."""

from __future__ import annotations

from pydantic import Field

from publisher.manifest.reports import Publication
from publisher.store.states import JobState
from publisher.webhooks.event_type import EventData, EventType, StateChange


class PublishedData(EventData):
    private: bool = Field(description="whether only the repository's owner may see it")
    publication: Publication = Field(description="where it lies")


def _published(change: StateChange) -> PublishedData | None:
    variant = change.variant
    if change.state is not JobState.SUCCEEDED or variant.publication is None:
        return None
    where = Publication.model_validate(variant.publication)
    return PublishedData(**EventData.subject(change), private=variant.publish_private, publication=where)


VARIANT_PUBLISHED = EventType(
    "variant.published", "A variant lies on its Hub, read back and whole.", PublishedData, _published
)
