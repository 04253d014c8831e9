"""Downloads with a session, from the embedded Hub and from another one."""

from __future__ import annotations

import hashlib

import httpx
from huggingface_hub import HfApi

from publisher.jobs.transitions import PublishedFile
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.rows import Account, manifest

CONTENT = b"<script>alert(1)</script>" * 100
FILE = PublishedFile("weights/a b.html", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_file_of_a_private_publication_comes_with_the_session(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client
) -> None:
    hub = HfApi(endpoint=f"{dashboard.url}/hub", token=account.key)
    repo = hub.create_repo(f"{hub.whoami()['name']}/small", private=True).repo_id
    commit = hub.upload_file(repo_id=repo, path_or_fileobj=CONTENT, path_in_repo=FILE.path).oid
    endpoint = f"{dashboard.url}/hub"
    work = account.job().start().succeed(manifest(), [FILE], endpoint=endpoint, repo_id=repo, commit=str(commit))
    page = browser.get(f"/variants/{work.variant_id}").text
    address = f"/variants/{work.variant_id}/files/weights/a%20b.html"
    assert f'href="{address}"' in page
    assert FILE.sha256 in page
    # the embedded Hub has no page to link to, but says how to get it
    assert f"HF_ENDPOINT={endpoint} hf download {repo} " in page
    assert f'href="{endpoint}' not in page
    answer = browser.get(address)
    assert answer.content == CONTENT
    # somebody's page must not run as one of ours
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    part = browser.get(address, headers={"Range": "bytes=5-9"})
    assert part.status_code == 206
    assert part.content == CONTENT[5:10]


def test_file_on_another_hub_is_redirected_to(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().succeed(manifest(), [FILE])
    answer = browser.get(f"/variants/{work.variant_id}/files/{FILE.path}")
    assert answer.headers["location"] == f"https://hub.example/org/small/resolve/{'ab' * 20}/weights/a%20b.html"


def test_unknown_file_has_no_page(account: Account, browser: httpx.Client) -> None:
    work = account.job().start().succeed(manifest(), [FILE])
    assert browser.get(f"/variants/{work.variant_id}/files/other").status_code == 404
