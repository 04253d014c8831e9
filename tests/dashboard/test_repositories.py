"""The pages of the embedded Hub's repositories: which there are, their files and commits, and the variant behind."""

from __future__ import annotations

import re
import shlex

import httpx

from publisher.dashboard.listing import PAGE as LINES
from publisher.hub.owner import Owner
from publisher.hub.references import ReferenceKind
from publisher.keys.scopes import Scope
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import Account, manifest
from tests.dashboard.scene import add_commit, add_repository
from tests.dashboard.test_pages import look
from tests.dashboard.test_settings import with_scopes


def test_empty_list_says_what_makes_one(browser: httpx.Client) -> None:
    assert "There is none yet." in look(browser, "/repositories")


def test_a_published_checkpoint_leads_to_its_variant(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    repository = add_repository(dashboard, account, "small", **{"config.json": "{}", "model.safetensors": "x" * 2048})
    name, commit = str(repository.id), repository.commit_id("main")
    endpoint = dashboard.service.settings.resolved_hub_endpoint
    work = account.job(name).start().succeed(manifest(), endpoint=endpoint, repo_id=name, commit=commit)
    add_repository(dashboard, account, "notes")
    page = look(browser, "/repositories")
    (row,) = re.findall(rf'<a class="name" href="/repositories/{name}">.*?</tr>', page)
    for told in ("this tenant", f'href="/variants/{work.variant_id}"', '"Files" class="number">2<', "2.0 KiB"):
        assert told in row
    assert page.index(f"{account.name}/notes") < page.index(name)
    page = look(browser, f"/repositories/{name}")
    assert page.count(f'href="/variants/{work.variant_id}"') == 2
    assert "initial commit" in page
    (command,) = re.findall(r"<code>(HF_ENDPOINT=.*?)</code>", page)
    assert shlex.split(command.replace("\\ ", ""))[1:] == ["hf", "download", name, "--revision", commit]


def test_files_are_those_of_the_revision_and_can_be_had(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    repository = add_repository(dashboard, account, "small", **{"a folder/a b.txt": "first"})
    name, first = f"/repositories/{repository.id}", repository.commit_id("main")
    repository.create_reference(ReferenceKind.TAG, "v1", "main")
    second = add_commit(repository, "Say more", **{"a folder/a b.txt": "second"})
    assert f'href="{name}/files/{second}/a%20folder/a%20b.txt"' in look(browser, name)
    assert 'href="' + name + '?revision=v1"' in look(browser, name)
    page = look(browser, f"{name}?revision=v1")
    assert "Say more" not in page
    (link,) = re.findall(rf'href="({name}/files/{first}/[^"]+)"', page)
    answer = browser.get(link)
    assert (answer.status_code, answer.text) == (200, "first")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert browser.get(f"{name}?revision=v2").status_code == 404
    assert browser.get(f"{name}/files/{first}/nothing.txt").status_code == 404


def test_lists_go_on_with_the_next(dashboard: RunningDashboard, account: Account, browser: httpx.Client) -> None:
    hub = dashboard.service.hub
    assert hub is not None
    for number in range(LINES + 1):
        add_repository(dashboard, account, f"r{number:02}")
    assert len(list(hub.owned_repositories(Owner(account.tenant_id, account.name)))) == LINES + 1
    page = look(browser, "/repositories")
    (next_page,) = re.findall(r'href="(/repositories\?after=[^"]+)"', page)
    assert f"{account.name}/r{LINES:02}" not in page
    page = look(browser, next_page)
    assert re.findall(r'class="name" href="([^"]+)"', page) == [f"/repositories/{account.name}/r{LINES:02}"]


def test_commits_go_on_with_older_ones(dashboard: RunningDashboard, account: Account, browser: httpx.Client) -> None:
    repository = add_repository(dashboard, account)
    for number in range(LINES):
        add_commit(repository, f"Change {number}", **{"notes.txt": str(number)})
    page = look(browser, f"/repositories/{repository.id}")
    assert "initial commit" not in page
    (older,) = re.findall(r'href="([^"]+)" rel="next"', page)
    assert "initial commit" in look(browser, older)


def test_a_damaged_repository_leaves_the_list_as_it_is(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    repository, _ = add_repository(dashboard, account, "broken"), add_repository(dashboard, account, "whole")
    head = dashboard.service.settings.hub_dir / "repos" / str(repository.id) / "refs" / "heads" / "main"
    head.write_text("nonsense")
    page = look(browser, "/repositories")
    assert "damaged" in page
    assert f"{account.name}/whole" in page
    assert browser.get(f"/repositories/{repository.id}").status_code == 503


def test_private_files_need_the_scope(dashboard: RunningDashboard, account: Account) -> None:
    repository = add_repository(dashboard, account)
    head = repository.commit_id("main")
    with with_scopes(dashboard, account, Scope.MODELS_READ) as browser:
        for path in ("", f"/{repository.id}", f"/{repository.id}/files/{head}/README.md"):
            assert browser.get(f"/repositories{path}").status_code == 403, path
