"""Who is calling: what an access token stands for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Owner:
    """A caller with a valid token. `tenant` owns repositories; `name` is the author and the default namespace."""

    tenant: str
    name: str
