"""Looking at a repository: folders, paths, branches and tags."""

from __future__ import annotations

import hashlib

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoFolder

from publisher.hub.git_objects import blob_id, pointer, tree_ids


def commit(api: HfApi, repo: str, *paths: str, title: str = "files") -> str:
    operations = [CommitOperationAdd(path, b"hello\n") for path in paths]
    return str(api.create_commit(repo, operations, commit_message=title).oid)


def test_ids_are_those_of_git() -> None:
    # Made with `git add` and `git write-tree`: every file holds "hello\n".
    hello = blob_id(b"hello\n")
    assert hello == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert tree_ids(dict.fromkeys(["a.txt", "a/x", "a/b/y", "a-b", "z"], hello)) == {
        "": "cc8e801a418311b2814f8e5cbf04cb20d81bbce1",
        "a": "97e2de31bd645b3ce36668b45807c0d2bb946ff3",
        "a/b": "1a9393ab98d9a946b6106a927c011d60f3362f20",
    }
    assert tree_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}


def test_folders_are_listed_flat_and_recursively(alice: HfApi, repo: str) -> None:
    commit(alice, repo, "a.txt", "sub/b.txt", "sub/deep/c.txt", "subway.txt")

    def listing(path: str | None = None, *, recursive: bool) -> list[tuple[str, type]]:
        return [(entry.path, type(entry)) for entry in alice.list_repo_tree(repo, path, recursive=recursive)]

    assert listing(recursive=False) == [("a.txt", RepoFile), ("sub", RepoFolder), ("subway.txt", RepoFile)]
    assert listing("sub", recursive=False) == [("sub/b.txt", RepoFile), ("sub/deep", RepoFolder)]
    assert listing("sub/deep", recursive=True) == [("sub/deep/c.txt", RepoFile)]
    assert [path for path, _ in listing(recursive=True)] == [
        "a.txt", "sub", "sub/b.txt", "sub/deep", "sub/deep/c.txt", "subway.txt",
    ]  # fmt: skip
    with pytest.raises(EntryNotFoundError):
        listing("additional_chat_templates", recursive=False)


def test_long_lists_come_in_pages(alice: HfApi, repo: str) -> None:
    paths = [f"part {number:04}/file.txt" for number in range(1100)]
    commit(alice, repo, *paths)
    alice.create_branch(repo, branch="feature/x")
    for revision in ("main", "feature/x"):
        entries = list(alice.list_repo_tree(repo, recursive=True, revision=revision))
        assert [entry.path for entry in entries if isinstance(entry, RepoFile)] == paths
        assert len(entries) == 2200


def test_paths_are_looked_up_and_unknown_ones_left_out(alice: HfApi, repo: str) -> None:
    content = b"\0" * 1000
    alice.create_commit(
        repo,
        [CommitOperationAdd("sub/w.bin", content), CommitOperationAdd("a.txt", b"hello\n")],
        commit_message="files",
    )
    file, folder, large = alice.get_paths_info(repo, ["a.txt", "sub", "sub/w.bin", "nothing"])
    assert isinstance(file, RepoFile)
    assert (file.size, file.blob_id, file.lfs) == (6, blob_id(b"hello\n"), None)
    assert isinstance(folder, RepoFolder)
    assert isinstance(large, RepoFile)
    assert large.lfs is not None
    digest = hashlib.sha256(content).hexdigest()
    assert (large.lfs.sha256, large.lfs.size) == (digest, 1000)
    assert large.lfs.pointer_size == len(pointer(digest, 1000))
    assert large.blob_id == blob_id(pointer(digest, 1000))


def test_entries_know_the_commit_that_changed_them_last(alice: HfApi, repo: str) -> None:
    first = commit(alice, repo, "a.txt", "sub/b.txt", title="first")
    second = commit(alice, repo, "sub/c.txt", title="second")
    third = alice.create_commit(
        repo, [CommitOperationAdd("d.txt", b"d"), CommitOperationDelete("sub/c.txt")], commit_message="third"
    ).oid
    assert first != second
    entries = alice.list_repo_tree(repo, recursive=True, expand=True)
    changed = {entry.path: entry.last_commit.oid for entry in entries if entry.last_commit is not None}
    assert changed == {"a.txt": first, "d.txt": third, "sub": third, "sub/b.txt": first}


def test_descriptions_have_sizes_when_asked(alice: HfApi, repo: str) -> None:
    oid = commit(alice, repo, "a.txt", "w.bin")
    plain = alice.model_info(repo)
    assert plain.sha == oid
    assert [(sibling.rfilename, sibling.size) for sibling in plain.siblings or []] == [("a.txt", None), ("w.bin", None)]
    small, large = alice.model_info(repo, files_metadata=True, revision=oid).siblings or []
    assert (small.size, small.lfs) == (6, None)
    assert large.lfs is not None
    assert large.lfs.sha256 == hashlib.sha256(b"hello\n").hexdigest()
    assert alice.model_info(repo, expand=["sha", "tags"]).sha == oid


def test_a_new_repository_is_empty_and_has_a_head(alice: HfApi, repo: str) -> None:
    info = alice.model_info(repo)
    assert info.sha is not None
    assert info.siblings == []
    assert list(alice.list_repo_tree(repo)) == []


def test_branches_and_tags(alice: HfApi, repo: str) -> None:
    first = commit(alice, repo, "a.txt")
    alice.create_tag(repo, tag="v1")
    alice.create_branch(repo, branch="feature/x", revision="v1")
    second = commit(alice, repo, "b.txt")
    alice.create_tag(repo, tag="v2", revision="main")
    alice.create_branch(repo, branch="old", revision=first)
    refs = alice.list_repo_refs(repo)
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first, "v2": second}
    assert {ref.ref: ref.target_commit for ref in refs.branches} == {
        "refs/heads/feature/x": first, "refs/heads/main": second, "refs/heads/old": first,
    }  # fmt: skip
    assert alice.model_info(repo, revision="refs/tags/v1").sha == first
    assert alice.model_info(repo, revision="refs/heads/main").sha == second
    alice.delete_tag(repo, tag="v1")
    alice.delete_branch(repo, branch="feature/x")
    refs = alice.list_repo_refs(repo)
    assert [ref.name for ref in refs.tags] == ["v2"]
    assert [ref.name for ref in refs.branches] == ["main", "old"]


def test_references_that_cannot_be_are_refused(alice: HfApi, repo: str) -> None:
    alice.create_tag(repo, tag="v1")
    with pytest.raises(HfHubHTTPError, match="exists already") as refused:
        alice.create_tag(repo, tag="v1")
    assert refused.value.response.status_code == 409
    alice.create_tag(repo, tag="v1", exist_ok=True)
    with pytest.raises(RevisionNotFoundError):
        alice.create_tag(repo, tag="v2", revision="nowhere")
    with pytest.raises(RevisionNotFoundError):
        alice.delete_tag(repo, tag="v2")
    for name in ("../main", "a..b", "0" * 40, "a.lock", "-x", "a b", "refs/heads/main", "x" * 101):
        with pytest.raises(HfHubHTTPError, match="not a name for a branch or tag"):
            alice.create_branch(repo, branch=name)
    with pytest.raises(HfHubHTTPError, match="cannot be deleted"):
        alice.delete_branch(repo, branch="main")
