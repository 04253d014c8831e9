"""The sections of the dashboard, as its header names them."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.dashboard.access import Visitor
from publisher.keys.scopes import Scope


@dataclass(frozen=True)
class Section:
    """`needs`: only who may do that sees it, or what is in `opens_to`."""

    address: str
    word: str
    needs: Scope = Scope.MODELS_READ
    opens_to: frozenset[Scope] = frozenset()

    def is_for(self, rights: frozenset[Scope]) -> bool:
        return self.needs in rights or bool(self.opens_to & rights)


#: in the header's order; a page names its own by `{% set section = "/jobs" %}`
SECTIONS = (
    Section("/overview", "Overview"),
    Section("/jobs", "Jobs"),
    Section("/variants", "Variants"),
    Section("/sweeps", "Sweeps"),
    Section("/base-models", "Base models"),
    Section("/corpora", "Corpora"),
    Section("/settings", "Settings", opens_to=frozenset({Scope.ADMIN, Scope.HUB_READ})),
)


def sections(visitor: Visitor) -> list[Section]:
    return [section for section in SECTIONS if section.is_for(visitor.caller.rights)]
