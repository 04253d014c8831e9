"""docs/audit.md names every action that the code writes."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT

_WRITTEN = re.compile(r'\brecord\(\s*session,\s*"([a-z_.]+)"')
_NAMED = re.compile(r"`([a-z_.]+)`")


def named_actions() -> set[str]:
    """`tenant.create`, `.suspend` in the table's first column are `tenant.create` and `tenant.suspend`."""
    page = (ROOT / "docs" / "audit.md").read_text()
    found: set[str] = set()
    for row in page.partition("| action | is written when |")[2].splitlines():
        thing = ""
        for name in _NAMED.findall(row.partition("|")[2].partition("|")[0]):
            thing = thing if name.startswith(".") else name.rpartition(".")[0]
            found.add(f"{thing}{name}" if name.startswith(".") else name)
    return found


def test_every_action_is_in_the_table() -> None:
    sources = (ROOT / "publisher").rglob("*.py")
    written = {action for source in sources for action in _WRITTEN.findall(source.read_text())}
    assert {"variant.create", "quota.set"} <= written
    assert written - named_actions() == set()
