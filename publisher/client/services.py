"""Which service is called, with which key: what `publisher login` keeps, and what the environment says instead.

Keys lie in one file of the user's configuration folder, readable by its owner alone, and are shown by nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from publisher.errors import RequestFault, Unauthorized, listed
from publisher.files.private import write_private

URL_VARIABLE, KEY_VARIABLE = "PUBLISHER_URL", "PUBLISHER_API_KEY"
#: where `publisher up` listens
LOCAL = "http://127.0.0.1:8000"
_LOGIN = "`publisher login` asks for one and keeps it."


@dataclass(frozen=True)
class Service:
    name: str
    url: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Kept:
    """The services that were signed in to, and the one that is meant where none is named."""

    services: dict[str, Service]
    default: str | None = None

    def named(self, name: str) -> Service:
        if name not in self.services:
            there_are = f"There are {listed(sorted(self.services))}." if self.services else _LOGIN
            raise RequestFault(f"no service is kept as {name!r}.", way_out=there_are)
        return self.services[name]

    def at(self, url: str) -> Service | None:
        return next((each for each in self.services.values() if each.url == url), None)

    def with_service(self, service: Service) -> Kept:
        """The one that was signed in to last is the default."""
        return Kept(self.services | {service.name: service}, service.name)

    def without(self, name: str) -> Kept:
        others = {each: service for each, service in self.services.items() if each != name}
        return Kept(others, self.default if self.default in others else next(iter(others), None))


def file() -> Path:
    return Path(click.get_app_dir("loram-publisher")) / "services.json"


def read() -> Kept:
    """Nothing, where nothing is kept. RequestFault for a file that somebody else wrote."""
    path = file()
    try:
        content: Any = json.loads(path.read_text())
        kept = {name: Service(name, each["url"], each["key"]) for name, each in content["services"].items()}
        return Kept(kept, content["default"])
    except FileNotFoundError:
        return Kept({})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RequestFault(f"{path} holds no services.", way_out="Delete it and sign in again.") from None


def write(kept: Kept) -> None:
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    services = {each.name: {"url": each.url, "key": each.key} for each in kept.services.values()}
    write_private(path, json.dumps({"default": kept.default, "services": services}, indent=2) + "\n")


def chosen(name: str | None = None, url: str | None = None, key: str | None = None) -> Service:
    """The service `name` of those that are kept; without one what options, then the environment say, and then the one
    that was signed in to last. A key of the environment goes to the address beside it, or to this machine: never to
    an address that was kept with another key."""
    if name is not None:
        return read().named(name)
    url, key = url or os.environ.get(URL_VARIABLE), key or os.environ.get(KEY_VARIABLE)
    if key:
        return Service("environment", (url or LOCAL).rstrip("/"), key)
    kept = read()
    found = kept.at(url.rstrip("/")) if url else kept.services.get(kept.default or "")
    if found is None:
        raise Unauthorized(f"there is no API key for {url or 'any service'}.", way_out=f"Set {KEY_VARIABLE}; {_LOGIN}")
    return found
