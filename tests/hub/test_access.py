"""Who may do what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError

from publisher.hub.names import RepositoryId
from publisher.hub.owner import Owner
from publisher.hub.router import create_hub
from publisher.hub.storage import HubStorage
from tests.hub.conftest import SECRET, TOKENS, RunningHub, name_of, serve


@pytest.fixture
def private(alice: HfApi, request: pytest.FixtureRequest) -> str:
    repo = str(alice.create_repo(f"alice/{name_of(request)}", private=True).repo_id)
    alice.upload_file(path_or_fileobj=b"secret", path_in_repo="a.txt", repo_id=repo)
    return repo


def test_creating_a_repository_twice(alice: HfApi) -> None:
    first = alice.create_repo("twice")  # without a namespace: the caller's own
    assert first.repo_id == "alice/twice"
    with pytest.raises(HfHubHTTPError, match="exists already") as refused:
        alice.create_repo("alice/twice")
    assert refused.value.response.status_code == 409
    assert alice.create_repo("alice/twice", exist_ok=True) == first


def test_the_owner_reads_and_writes_a_private_repository(hub: RunningHub, private: str, tmp_path: Path) -> None:
    snapshot = snapshot_download(private, endpoint=hub.endpoint, cache_dir=tmp_path, token="token-of-alice")
    assert (Path(snapshot) / "a.txt").read_bytes() == b"secret"


@pytest.mark.parametrize("stranger", ["bob", None])
def test_a_private_repository_looks_missing_to_strangers(
    hub: RunningHub, private: str, tmp_path: Path, stranger: str | None
) -> None:
    api = hub.api(stranger)
    token = f"token-of-{stranger}" if stranger else False
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(private, "a.txt", endpoint=hub.endpoint, cache_dir=tmp_path, token=token)
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download(private, endpoint=hub.endpoint, cache_dir=tmp_path, token=token)
    for call in (api.model_info, api.list_repo_refs, api.list_repo_commits, api.list_repo_files):
        with pytest.raises(RepositoryNotFoundError):
            call(private)
    with pytest.raises(RepositoryNotFoundError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=private)
    assert private not in [model.id for model in api.list_models(author="alice")]
    # Not to be told from a repository that does not exist.
    seen = httpx.get(f"{hub.endpoint}/api/models/{private}", headers=_headers(stranger))
    missing = httpx.get(f"{hub.endpoint}/api/models/alice/missing", headers=_headers(stranger))
    assert seen.status_code == missing.status_code == (404 if stranger else 401)
    assert seen.json()["error"].replace(private, "alice/missing") == missing.json()["error"]


def _headers(name: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer token-of-{name}"} if name else {}


@pytest.mark.parametrize("stranger", ["bob", None])
def test_strangers_read_but_do_not_write_a_public_repository(
    hub: RunningHub, alice: HfApi, stranger: str | None
) -> None:
    repo = "alice/open"
    alice.create_repo(repo, exist_ok=True)
    alice.upload_file(path_or_fileobj=b"open", path_in_repo="a.txt", repo_id=repo)
    api = hub.api(stranger)
    assert api.list_repo_files(repo) == ["a.txt"]
    for change in (
        lambda: api.upload_file(path_or_fileobj=b"mine", path_in_repo="a.txt", repo_id=repo),
        lambda: api.upload_file(path_or_fileobj=b"mine", path_in_repo="w.safetensors", repo_id=repo),
        lambda: api.delete_file("a.txt", repo),
        lambda: api.create_branch(repo, branch="mine"),
        lambda: api.create_tag(repo, tag="mine"),
        lambda: api.update_repo_settings(repo, private=True),
        lambda: api.delete_repo(repo),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            change()
        assert refused.value.response.status_code == (403 if stranger else 401)
    batch = httpx.post(
        f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch",
        headers=_headers(stranger),
        json={"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}]},
    )
    assert batch.status_code == (403 if stranger else 401)
    assert alice.list_repo_files(repo) == ["a.txt"]


def test_a_namespace_belongs_to_who_first_used_it(alice: HfApi, bob: HfApi) -> None:
    alice.create_repo("lab/first")
    with pytest.raises(HfHubHTTPError, match="'lab' belongs to somebody else") as refused:
        bob.create_repo("lab/second")
    assert refused.value.response.status_code == 403
    alice.delete_repo("lab/first")
    with pytest.raises(HfHubHTTPError):
        bob.create_repo("lab/first")


def test_visibility_can_be_changed(alice: HfApi, anybody: HfApi, private: str) -> None:
    alice.update_repo_settings(private, private=False)
    assert anybody.model_info(private).private is False
    alice.update_repo_settings(private, visibility="private")
    with pytest.raises(RepositoryNotFoundError):
        anybody.model_info(private)
    with pytest.raises(BadRequestError, match="no gated repositories"):
        alice.update_repo_settings(private, gated="auto")


def test_a_wrong_token_is_told_from_a_missing_repository(hub: RunningHub, alice: HfApi, repo: str) -> None:
    wrong = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as refused:
        wrong.model_info(repo)
    assert not isinstance(refused.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        wrong.whoami()
    assert alice.whoami()["name"] == "alice"


def test_a_deleted_repository_is_gone(hub: RunningHub, alice: HfApi) -> None:
    alice.create_repo("alice/doomed")
    alice.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id="alice/doomed")
    alice.delete_repo("alice/doomed")
    assert not alice.repo_exists("alice/doomed")
    alice.delete_repo("alice/doomed", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        alice.delete_repo("alice/doomed")
    alice.create_repo("alice/doomed")
    assert alice.list_repo_files("alice/doomed") == []


@pytest.mark.parametrize(
    ("name", "organization"),
    [("a--b", "alice"), ("a..b", "alice"), ("-a", "alice"), ("a.git", "alice"), ("x" * 97, "alice"), ("ü", "alice"),
     ("..", "alice"), ("x", "api"), ("x", "Datasets"), ("a/b", "alice"), ("", "alice"), ("a", "../a")],
)  # fmt: skip
def test_names_that_cannot_be_are_refused_with_what_would_be_right(
    hub: RunningHub, name: str, organization: str
) -> None:
    answer = httpx.post(
        f"{hub.endpoint}/api/repos/create",
        headers=_headers("alice"),
        json={"name": name, "organization": organization, "type": "model"},
    )
    assert answer.status_code == 400
    assert "Use " in answer.json()["error"]
    assert "Use " in answer.headers["X-Error-Message"]


@pytest.mark.parametrize("name", ["a", "A_b.c-d", "123", "x" * 96])
def test_names_that_the_client_allows_are_allowed(alice: HfApi, name: str) -> None:
    assert alice.create_repo(f"alice/{name}").repo_id == f"alice/{name}"


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_only_models_are_kept(hub: RunningHub, alice: HfApi, kind: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="models only"):
        alice.create_repo("alice/x", repo_type=kind, space_sdk="static" if kind == "space" else None)
    with pytest.raises(RepositoryNotFoundError, match="models only"):
        hf_hub_download("alice/x", "a", repo_type=kind, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)


def test_models_are_listed_and_searched(alice: HfApi, bob: HfApi, anybody: HfApi) -> None:
    bob.create_repo("bob/Llama-small")
    bob.create_repo("bob/other", private=True)
    card = b"---\nlibrary_name: transformers\nlicense: mit\n---\n"
    bob.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id="bob/Llama-small")
    assert [model.id for model in anybody.list_models(search="llama-s")] == ["bob/Llama-small"]
    assert {model.id for model in bob.list_models(author="bob")} >= {"bob/Llama-small", "bob/other"}
    assert [model.id for model in anybody.list_models(author="bob", filter="license:mit")] == ["bob/Llama-small"]
    newest = next(iter(anybody.list_models(author="bob", sort="last_modified", limit=1, full=True)))
    assert newest.id == "bob/Llama-small"
    assert newest.library_name == "transformers"
    assert [sibling.rfilename for sibling in newest.siblings or []] == ["README.md"]


def test_unknown_addresses_answer_in_the_hubs_format(hub: RunningHub) -> None:
    answer = httpx.get(f"{hub.endpoint}/api/models/alice/x/discussions")
    assert answer.status_code == 404
    assert "GET /hub/api/models/alice/x/discussions" in answer.json()["error"]
    answer = httpx.post(f"{hub.endpoint}/api/repos/create", headers=_headers("alice"), json={"nome": "x"})
    assert answer.status_code == 400
    assert "body.name" in answer.json()["error"]


@pytest.mark.parametrize(("path", "shown"), [("%00", "\\x00"), ("a%7Fb", "a\\x7fb"), ("%E2%80%AE", "\\u202e")])
def test_an_address_that_fits_no_header_is_answered_all_the_same(hub: RunningHub, path: str, shown: str) -> None:
    answer = httpx.get(f"{hub.endpoint}/{path}")
    assert answer.status_code == 404
    assert f"/hub/{shown}" in answer.headers["X-Error-Message"]
    assert "does not know GET" in answer.json()["error"]


def test_bodies_that_are_held_in_memory_are_bounded(hub: RunningHub) -> None:
    answer = httpx.post(f"{hub.endpoint}/api/validate-yaml", json={"content": "x" * 17_000_000})
    assert answer.status_code == 413


def test_links_have_the_public_address(tmp_path: Path) -> None:
    hub = create_hub(
        HubStorage(tmp_path), authenticate=TOKENS.get, secret=SECRET, public_url="https://models.example.org/"
    )
    app = FastAPI()
    app.mount("/hub", hub)
    with serve(app) as port:
        api = HfApi(endpoint=f"http://127.0.0.1:{port}/hub", token="token-of-alice")
        answer = httpx.post(
            f"{api.endpoint}/api/repos/create", headers=_headers("alice"), json={"name": "x", "organization": None}
        )
        assert answer.json()["url"] == "https://models.example.org/hub/models/alice/x"
        batch = httpx.post(
            f"{api.endpoint}/alice/x.git/info/lfs/objects/batch",
            headers=_headers("alice"),
            json={"operation": "upload", "objects": [{"oid": "0" * 64, "size": 1}]},
        )
        link = batch.json()["objects"][0]["actions"]["upload"]["href"]
        assert link.startswith("https://models.example.org/hub/api/uploads/alice/x/")


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 bytes; use at least 16"):
        create_hub(HubStorage(tmp_path), authenticate=lambda token: Owner("t", "n"), secret=b"short")


def test_one_tenant_may_have_several_names(tmp_path: Path) -> None:
    storage = HubStorage(tmp_path)
    app = FastAPI()
    keys = {"ci": Owner("team", "ci"), "human": Owner("team", "ada")}
    app.mount("/hub", create_hub(storage, authenticate=keys.get, secret=SECRET))
    with serve(app) as port:
        endpoint = f"http://127.0.0.1:{port}/hub"
        HfApi(endpoint=endpoint, token="ci").create_repo("lab/m", private=True)
        human = HfApi(endpoint=endpoint, token="human")
        human.create_commit("lab/m", [CommitOperationAdd("a.txt", b"x")], commit_message="by hand")
        assert [commit.authors for commit in human.list_repo_commits("lab/m")] == [["ada"], ["ci"]]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[[str], HfApi]]:
    """Clients of a tenant with a private repository: by an API key, by the token of a job that publishes to lab/job,
    and of a rival."""
    keys = {"key": Owner("team", "ada"), "job": Owner("team", "ada", "lab/job"), "rival": Owner("other", "eve")}
    app = FastAPI()
    app.mount("/hub", create_hub(HubStorage(tmp_path), authenticate=keys.get, secret=SECRET))
    with serve(app) as port:

        def client(token: str) -> HfApi:
            return HfApi(endpoint=f"http://127.0.0.1:{port}/hub", token=token)

        client("key").create_repo("lab/secret", private=True)
        yield client


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except HfHubHTTPError as error:
        return error.response.status_code
    return 200


def test_token_for_one_repository_publishes_there_and_reads_it(lab: Callable[[str], HfApi]) -> None:
    job = lab("job")
    job.create_repo("lab/job", private=True)
    job.create_commit("lab/job", [CommitOperationAdd("a.txt", b"x")], commit_message="by the job")
    assert job.list_repo_files("lab/job") == ["a.txt"]
    assert [model.id for model in job.list_models(author="lab")] == ["lab/job"]
    job.auth_check("lab/job", write=True)


def test_token_for_one_repository_reaches_nothing_else_of_its_tenant(lab: Callable[[str], HfApi]) -> None:
    job, key = lab("job"), lab("key")
    key.create_repo("lab/open")
    key.create_repo("lab/job")
    add = [CommitOperationAdd("a.txt", b"x")]
    refused = {
        404: [
            lambda: job.model_info("lab/secret"),
            lambda: job.create_commit("lab/secret", add, commit_message="m"),
            lambda: job.auth_check("lab/secret", write=True),
        ],
        403: [
            lambda: job.create_commit("lab/open", add, commit_message="m"),
            lambda: job.auth_check("lab/open", write=True),
            lambda: job.create_repo("lab/another"),
            lambda: job.delete_repo("lab/job"),
            lambda: job.update_repo_settings("lab/job", private=True),
        ],
    }
    assert {status: [status_of(call) for call in calls] for status, calls in refused.items()} == {
        status: [status] * len(calls) for status, calls in refused.items()
    }
    assert key.model_info("lab/job").private is False


@pytest.mark.parametrize(
    ("token", "repo_id", "write", "status"),
    [
        ("key", "lab/secret", True, 200),
        ("key", "lab/none", True, 404),
        ("rival", "lab/secret", True, 403),
        ("rival", "lab/none", True, 403),
        ("rival", "lab/secret", False, 404),
        ("rival", "nobodys/none", True, 404),
        ("key", "lab/secret", False, 200),
    ],
)
def test_rights_can_be_asked_for(
    lab: Callable[[str], HfApi], token: str, repo_id: str, write: bool, status: int
) -> None:
    """To write, also where there is no repository yet: whose the namespace is says whether there can be one."""
    assert status_of(lambda: lab(token).auth_check(repo_id, write=write)) == status


def test_token_that_ends_while_a_commit_comes_in_moves_no_branch(tmp_path: Path) -> None:
    ada, storage = Owner("team", "ada"), HubStorage(tmp_path)
    repository = storage.create_repository(RepositoryId("lab", "m"), ada, private=False)
    known = iter([ada, None])  # when the request comes, and when the branch is to move
    app = FastAPI()
    app.mount("/hub", create_hub(storage, authenticate=lambda token: next(known), secret=SECRET))
    lines = [
        {"key": "header", "value": {"summary": "late"}},
        {"key": "file", "value": {"path": "a.txt", "content": "YQ==", "encoding": "base64"}},
    ]
    before = repository.commit_id("main")
    with serve(app) as port:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/hub/api/models/lab/m/commit/main",
            headers={"Authorization": "Bearer token"},
            content="\n".join(map(json.dumps, lines)),
        )
    assert answer.status_code == 401
    assert repository.commit_id("main") == before
