"""The service from Python: `Client`, `AsyncClient`, and `calls` for what pages (`client.every(calls.list_jobs)`).

Loaded when they are asked for: the command line's `--help` needs no HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from publisher.client.async_client import AsyncClient
    from publisher.client.client import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from publisher.client.client import Client

        return Client
    if name == "AsyncClient":
        from publisher.client.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
