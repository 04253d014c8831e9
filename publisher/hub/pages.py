"""Lists in pages: the next one is named in a Link header, as clients of the Hub expect."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from starlette.datastructures import URL

Cursor = Annotated[int, Query(ge=0)]


def add_next_link(request: Request, response: Response, hub_url: str, cursor: int | None) -> None:
    """Adds the link unless `cursor` is None, which means that this was the last page."""
    if cursor is None:
        return
    # The path as the client sent it, below the Hub: its encoded slashes must stay encoded.
    raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    below = raw_path.decode("ascii").removeprefix(request.scope.get("root_path", ""))
    query = URL(scope=request.scope).include_query_params(cursor=cursor).query
    response.headers["Link"] = f'<{hub_url}{below}?{query}>; rel="next"'
