"""Who is calling: what an access token stands for."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.keys.scopes import ALL, Scope


@dataclass(frozen=True)
class Owner:
    """A caller with a valid token. `tenant` owns repositories; `name` is the author and the default namespace.

    `repository`: "namespace/name" of the only one that this token is for; None: all of the tenant's. `rights`: of
    those, hub:read and hub:write count here.
    """

    tenant: str
    name: str
    repository: str | None = None
    rights: frozenset[Scope] = ALL

    def reaches(self, repository: object) -> bool:
        """Whether the token is for this repository at all, if that is the tenant's."""
        return self.repository is None or self.repository == str(repository)

    @property
    def may_read(self) -> bool:
        """Whether its tenant's private repositories are open to it."""
        return Scope.HUB_READ in self.rights
