"""`publisher admin quota`: what an operator sets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.client.exit_codes import Exit
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.keys import add_tenant
from tests.client.test_commands import publisher


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a tenant of an installation that the command's settings name."""
    for name in [name for name in os.environ if name.startswith("PUBLISHER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PUBLISHER_DATA_DIR", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'publisher.db'}"
    migrate.upgrade(url)
    with Database(url).write() as session:
        add_tenant(session, "team")
    return "team"


def shown(team: str) -> dict[str, list[str]]:
    lines = publisher("admin", "quota", "show", team).stdout.splitlines()
    return {name: rest for name, *rest in (line.split("\t") for line in lines)}


def test_limits_are_set_and_shown_and_set_back(team: str) -> None:
    assert shown(team)["jobs_queued"] == ["none", "default"]
    assert publisher("admin", "quota", "set", team, "jobs_queued=100", "jobs_running=none").returncode == 0
    assert (shown(team)["jobs_queued"], shown(team)["jobs_running"]) == (["100", "its own"], ["none", "its own"])
    assert publisher("admin", "quota", "set", team, "jobs_queued=default").returncode == 0
    assert shown(team)["jobs_queued"] == ["none", "default"]
    assert '"action": "quota.set"' in publisher("admin", "audit", "--action", "quota").stdout


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["nobody", "jobs_queued=1"], "there is no tenant 'nobody'."),
        (["team", "jobs=1"], "'jobs' is no quota. There are jobs_queued,"),
        (["team", "jobs_queued=many"], "'many' is no limit. Give a number, none or default."),
        (["team", "jobs_queued=-1"], "'-1' is no limit."),
        (["team", "requests_per_minute=0"], "'0' is no limit of requests_per_minute. Give 1 to "),
        (["team", f"stored_bytes={2**63}"], f"'{2**63}' is no limit of stored_bytes."),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(team: str, wrong: list[str], said: str) -> None:
    done = publisher("admin", "quota", "set", *wrong)
    assert done.returncode == (Exit.NOT_YOURS if "there is no tenant" in said else Exit.REFUSED)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("quota", "show", "team"),
        ("quota", "set", "team", "jobs_queued=1"),
        ("audit",),
        ("audit", "prune", "--before", "1"),
        ("member", "list"),
        ("secrets", "show"),
        ("secrets", "rotate"),
        ("tenant", "list"),
        ("key", "list"),
    ],
)
def test_where_no_service_was_ever_started_every_command_says_so_and_makes_nothing(
    team: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    done = publisher("admin", *command, "--data", str(elsewhere))
    assert done.returncode == 4
    assert "there is no installation in" in done.stderr
    assert "Traceback" not in done.stderr
    assert not elsewhere.exists()
