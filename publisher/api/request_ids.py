"""The id of a request, for the API's own modules. The Hub stands below the API and answers on its own, too: it has the
middleware."""

from __future__ import annotations

from publisher.hub.request_ids import HEADER, RequestIds
from publisher.store.origin import current_request_id

__all__ = ["HEADER", "RequestIds", "current_request_id"]
