"""docs/scopes.md: what each scope of an API key opens, from the register."""

from __future__ import annotations

from publisher.keys.scopes import SCOPES
from publisher.keys.text import PATTERN
from publisher.reference.markdown import page, table

_INTRODUCTION = """
A key has the scopes that it was made with, and what these include; keys from before there were scopes have all.
What a key lacks is refused with 403, which names the scope. A key makes keys of its own scopes alone.
[tenants.md](tenants.md) says how keys are made.
"""
_PATTERN = """
Keys match `{pattern}`. The last six characters are the CRC-32 of all before them, in base 62 (`0-9A-Za-z`, most
significant first): a scanner of leaked secrets needs no list of keys, and a mistyped key is told as such.
"""


def scopes_page() -> str:
    lines = [
        [f"`{each.scope}`", each.opens, ", ".join(f"`{included}`" for included in each.includes)] for each in SCOPES
    ]
    scopes = table(["scope", "opens", "includes"], lines)
    return page("Scopes of API keys", _INTRODUCTION, scopes, _PATTERN.format(pattern=PATTERN.pattern))
