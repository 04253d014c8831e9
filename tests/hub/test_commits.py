"""Commits: all or nothing, in order, from many writers."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

from tests.hub.conftest import RunningHub


def add(api: HfApi, repo: str, *paths: str, parent: str | None = None) -> str:
    operations = [CommitOperationAdd(path, path.encode()) for path in paths]
    return str(api.create_commit(repo, operations, commit_message=f"add {paths}", parent_commit=parent).oid)


def send_lines(hub: RunningHub, repo: str, *lines: dict[str, object], revision: str = "main") -> httpx.Response:
    """A commit past the client, which would not send such things."""
    return httpx.post(
        f"{hub.endpoint}/api/models/{repo}/commit/{revision}",
        headers={"Authorization": "Bearer token-of-alice"},
        content="\n".join(json.dumps(line) for line in lines),
    )


def header(**more: object) -> dict[str, object]:
    return {"key": "header", "value": {"summary": "summary", **more}}


def file(path: str, content: bytes = b"x") -> dict[str, object]:
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def test_files_and_folders_are_deleted_and_copied(alice: HfApi, repo: str) -> None:
    add(alice, repo, "a.txt", "old/b.txt", "old/c/d.txt", "keep.txt", "w.safetensors")
    alice.create_commit(
        repo,
        [
            CommitOperationDelete("a.txt"),
            CommitOperationDelete("old/"),
            CommitOperationCopy("w.safetensors", "copies/w.safetensors"),
            CommitOperationCopy("keep.txt", "copies/keep.txt"),
        ],
        commit_message="tidy",
    )
    assert sorted(alice.list_repo_files(repo)) == [
        "copies/keep.txt",
        "copies/w.safetensors",
        "keep.txt",
        "w.safetensors",
    ]


def test_a_failing_operation_undoes_the_whole_commit(alice: HfApi, repo: str) -> None:
    head = add(alice, repo, "a.txt")
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        alice.create_commit(
            repo,
            [CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("missing.txt")],
            commit_message="half",
        )
    assert alice.list_repo_files(repo) == ["a.txt"]
    assert alice.model_info(repo).sha == head


def test_a_parent_that_is_not_the_head_is_refused(alice: HfApi, repo: str) -> None:
    first = add(alice, repo, "a.txt")
    second = add(alice, repo, "b.txt", parent=first)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        add(alice, repo, "c.txt", parent=first)
    assert refused.value.response.status_code == 412
    assert alice.model_info(repo).sha == second


def test_of_writers_with_one_parent_exactly_one_wins(alice: HfApi, repo: str) -> None:
    parent = add(alice, repo, "a.txt")

    def attempt(number: int) -> str | int:
        try:
            return add(alice, repo, f"{number}.txt", parent=parent)
        except HfHubHTTPError as refused:
            return refused.response.status_code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert [outcome for outcome in outcomes if outcome != 412] == [alice.model_info(repo).sha]
    assert len(alice.list_repo_files(repo)) == 2


def test_writers_without_a_parent_all_get_in(alice: HfApi, repo: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        oids = list(pool.map(lambda number: add(alice, repo, f"{number}.txt"), range(16)))
    assert sorted(alice.list_repo_files(repo)) == sorted(f"{number}.txt" for number in range(16))
    assert {commit.commit_id for commit in alice.list_repo_commits(repo)} > set(oids)
    assert len(alice.list_repo_commits(repo)) == 17


@pytest.mark.parametrize(
    "path",
    ["../a", "a/../../b", "/etc/passwd", "a\\b", "", ".", "..", "a//b", "a/", ".git/config", "a/.GIT/x", "a\0b", "a\nb",
     "x" * 256, "/".join(["abcd"] * 250)],
)  # fmt: skip
def test_unsafe_paths_are_refused(hub: RunningHub, repo: str, path: str) -> None:
    lines: list[dict[str, object]] = [
        file(path),
        {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": "0" * 64, "size": 1}},
        {"key": "deletedFile", "value": {"path": path}},
    ]
    for line in lines:
        answer = send_lines(hub, repo, header(), line)
        assert answer.status_code == 400
        assert "is not a path in a repository" in answer.json()["error"]
    answer = httpx.post(
        f"{hub.endpoint}/api/models/{repo}/preupload/main",
        headers={"Authorization": "Bearer token-of-alice"},
        json={"files": [{"path": path, "size": 1, "sample": ""}]},
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["..%2f..%2frepo.json", "%2e%2e/repo.json", "../repo.json", "%00", "a%5c..%5cb"])
def test_unsafe_paths_find_nothing(hub: RunningHub, repo: str, path: str) -> None:
    answer = httpx.get(f"{hub.endpoint}/{repo}/resolve/main/{path}")
    assert answer.status_code == 404
    answer = httpx.get(f"{hub.endpoint}/{repo}/resolve/{path}/a.txt")
    assert answer.status_code == 404


def test_a_file_cannot_lie_in_a_file(hub: RunningHub, alice: HfApi, repo: str) -> None:
    add(alice, repo, "a")
    answer = send_lines(hub, repo, header(), file("a/b"))
    assert answer.status_code == 400
    assert "cannot lie in 'a', which is a file" in answer.json()["error"]
    assert send_lines(hub, repo, header(), {"key": "deletedFile", "value": {"path": "a"}}, file("a/b")).is_success
    assert alice.list_repo_files(repo) == ["a/b"]


def test_lines_that_cannot_be_read_are_refused_by_name(hub: RunningHub, repo: str) -> None:
    for lines, reason in (
        ([file("a.txt")], "no header line"),
        ([header(), {"key": "surprise", "value": {}}], "surprise"),
        ([header(), {"key": "file", "value": {"path": "a.txt", "content": "%%%"}}], "not base64"),
        ([header(), {"key": "lfsFile", "value": {"path": "a", "oid": "../../x"}}], "lfsFile.value.oid"),
        ([{"key": "header", "value": {}}], "header.value.summary"),
    ):
        answer = send_lines(hub, repo, *lines)
        assert answer.status_code == 400
        assert reason in answer.json()["error"]


def test_a_file_too_large_for_a_commit_is_refused(hub: RunningHub, repo: str) -> None:
    answer = send_lines(hub, repo, header(), file("a.txt", b"x" * 12_000_000))
    assert answer.status_code == 400
    assert "Upload it as a large file" in answer.json()["error"]


def test_commits_go_to_branches_that_exist(alice: HfApi, repo: str) -> None:
    with pytest.raises(RevisionNotFoundError):
        alice.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=repo, revision="nowhere")
    alice.create_branch(repo, branch="feature/x")
    alice.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=repo, revision="feature/x")
    assert alice.list_repo_files(repo, revision="feature/x") == ["a.txt"]
    assert alice.list_repo_files(repo) == []


def test_history_has_every_commit_newest_first(alice: HfApi, repo: str) -> None:
    alice.create_commit(repo, [CommitOperationAdd("a", b"1")], commit_message="one", commit_description="details")
    alice.create_commit(repo, [CommitOperationAdd("a", b"2")], commit_message="two")
    commits = alice.list_repo_commits(repo, formatted=True)
    assert [commit.title for commit in commits] == ["two", "one", "initial commit"]
    assert commits[1].message == commits[1].formatted_message == "details"
    assert commits[0].created_at >= commits[1].created_at
    assert commits[0].authors == ["alice"]


@pytest.mark.parametrize(
    "path",
    ["a:b.txt", "x/a:b.txt", "c:/x", "long:name", "what?.txt", "a*", 'say "x"', "a<b", "a|b", "a>b", "CON", "nul.txt",
     "x/com1.json", "Aux", "end.", "end ", "dir./a", ".cache/huggingface/x", "a\x85b", "a\u2028b", "x" * 247],
)  # fmt: skip
def test_names_that_some_clients_could_not_download_are_refused_by_name(
    hub: RunningHub, alice: HfApi, repo: str, path: str
) -> None:
    answer = send_lines(hub, repo, header(), file(path))
    assert answer.status_code == 400
    assert repr(path)[1:150] in answer.json()["error"]
    if not path.startswith(".cache"):
        with pytest.raises(BadRequestError, match="is not a path in a repository"):
            alice.upload_file(path_or_fileobj=b"x", path_in_repo=path, repo_id=repo)
    assert alice.list_repo_files(repo) == []
    # nothing of that name is there, but what an older version took in can be deleted
    assert send_lines(hub, repo, header(), {"key": "deletedFile", "value": {"path": path}}).status_code == 404


@pytest.mark.parametrize(
    "path", ["a#b.txt", "100 %.txt", "ü 😀.txt", "~x", "[x]{y}.json", "a'b", "$x;y&z=1", "x" * 246]
)
def test_unusual_names_come_back(hub: RunningHub, alice: HfApi, repo: str, path: str, tmp_path: Path) -> None:
    add(alice, repo, path)
    for place in ({"cache_dir": tmp_path / "cache"}, {"local_dir": tmp_path / "local"}):
        assert Path(hf_hub_download(repo, path, endpoint=hub.endpoint, token=False, **place)).name == path


@pytest.mark.parametrize(
    ("there", "added"),
    [
        ("Readme.md", "README.md"),
        ("a/x.txt", "A/y.txt"),
        ("a", "A/y.txt"),
        ("é.txt", "e\u0301.txt"),
        ("straße", "STRASSE"),
    ],
)
def test_names_that_are_one_on_other_file_systems_are_refused(
    hub: RunningHub, alice: HfApi, repo: str, there: str, added: str
) -> None:
    add(alice, repo, there)
    answer = send_lines(hub, repo, header(), file(added))
    assert answer.status_code == 400
    assert repr(added) in answer.json()["error"]
    assert repr(there.partition("/")[0]) in answer.json()["error"]
    # renaming is no clash
    delete = {"key": "deletedFile", "value": {"path": there}}
    assert send_lines(hub, repo, header(), delete, file(added)).status_code == 200
    assert alice.list_repo_files(repo) == [added]
