"""docs/settings.md: every PUBLISHER_* variable, from the settings class."""

from __future__ import annotations

from collections.abc import Iterable

from publisher.people.rules import Rule
from publisher.reference.fields import Row, rows
from publisher.reference.markdown import page, table
from publisher.reference.recipes import part
from publisher.settings import Settings

_INTRODUCTION = """
Every process of the service (API, Hub, workers) reads these variables once, when it starts. The defaults are the
embedded form: one machine, nothing to install. A wrong value ends the process at its start, with the setting's name.
Lists are JSON: `PUBLISHER_LOCAL_ROOTS='["/srv/models", "/srv/corpora"]'`. [operations.md](operations.md) says which
ones several machines need, [sign-in.md](sign-in.md) how people sign in by `PUBLISHER_OIDC_*`.
"""


def settings_page() -> str:
    fields = {row.name: row for row in rows(Settings)}
    groups = [base for base in Settings.__mro__[1:] if base.__module__.startswith("publisher.configuration.")]
    sections = []
    for group in groups:
        theirs = [fields.pop(name) for name in group.__annotations__ if name in fields]
        sections.append(f"## {group.__doc__}\n\n{_variables(theirs)}")
    return page("Settings", _INTRODUCTION, _variables(fields.values()), *sections, part(Rule))


def _variables(settings: Iterable[Row]) -> str:
    prefix = Settings.model_config["env_prefix"]
    lines = [[f"`{prefix}{row.name.upper()}`", row.type, row.range, row.default, row.description] for row in settings]
    return table(["variable", "type", "range", "default", "what it is"], lines)
