"""The sections of the dashboard, as its header names them."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.dashboard.access import Visitor
from publisher.keys.scopes import Scope


@dataclass(frozen=True)
class Section:
    """`needs`: only who may do that sees it."""

    address: str
    word: str
    needs: Scope = Scope.MODELS_READ


#: in the header's order; a page names its own by `{% set section = "/jobs" %}`
SECTIONS = (
    Section("/jobs", "Jobs"),
    Section("/variants", "Variants"),
    Section("/base-models", "Base models"),
    Section("/corpora", "Corpora"),
)


def sections(visitor: Visitor) -> list[Section]:
    return [section for section in SECTIONS if section.needs in visitor.caller.rights]
