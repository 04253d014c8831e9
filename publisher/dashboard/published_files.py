"""Content of what a variant published, as far as the embedded Hub has it; other Hubs are not asked for a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from publisher.api.service import Service
from publisher.errors import PublisherError
from publisher.hub.reading import StoredContent
from publisher.manifest.reports import Publication

#: bytes of a bill of materials that are read: it names a few hundred files at most
_BILL_BYTES = 2**22
BILL = "bom.cdx.json"


def is_here(service: Service, publication: Publication) -> bool:
    """Whether the embedded Hub has it."""
    return service.hub is not None and service.settings.is_embedded_hub(publication.endpoint)


def content_of(service: Service, publication: Publication, path: str) -> StoredContent | None:
    """Of one file; None if it was published elsewhere. Raises what the Hub raises for what is lost or damaged."""
    if service.hub is None or not is_here(service, publication):
        return None
    return service.hub.open_repository(publication.repo_id).resolve(publication.commit, path).content


def licences(service: Service, publication: Publication) -> list[str]:
    """As the checkpoint's bill of materials names them; none where there is no such bill, or it cannot be read."""
    try:
        content = content_of(service, publication, BILL)
        if content is None or content.size > _BILL_BYTES:
            return []
        return _named(json.loads(content.read()))
    except (PublisherError, ValueError, RecursionError):
        return []


def _named(bill: Any) -> list[str]:
    component = _part(_part(bill, "metadata"), "component")
    entries = component.get("licenses")
    found = [_part(entry, "license") for entry in entries] if isinstance(entries, list) else []
    return [name for each in found if isinstance(name := each.get("id") or each.get("name"), str)]


def _part(content: Any, name: str) -> Mapping[str, Any]:
    part = content.get(name) if isinstance(content, Mapping) else None
    return part if isinstance(part, Mapping) else {}
