"""Files on their way in: what arrives is kept exactly, what does not match is not kept at all."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

from publisher.hub.links import UploadLinks
from publisher.hub.names import RepositoryId
from tests.hub.conftest import SECRET, RunningHub


def stored_blobs(hub: RunningHub) -> set[str]:
    return {path.name for path in hub.storage.root.glob("blobs/*/*")}


def leftovers(hub: RunningHub) -> list[Path]:
    return list((hub.storage.root / "incoming").iterdir())


def upload_address(hub: RunningHub, repo: str, content: bytes) -> str:
    """An upload link as the client gets it."""
    answer = httpx.post(
        f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch",
        headers={"Authorization": "Bearer token-of-alice", "Content-Type": "application/vnd.git-lfs+json"},
        content=_batch(content),
    )
    return str(answer.json()["objects"][0]["actions"]["upload"]["href"])


def _batch(content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f'{{"operation": "upload", "objects": [{{"oid": "{digest}", "size": {len(content)}}}]}}'


def test_folder_comes_back_byte_for_byte(hub: RunningHub, alice: HfApi, repo: str, tmp_path: Path) -> None:
    sent = {
        "README.md": b"---\nlicense: mit\n---\n# Model\n",
        "config.json": b'{"hidden_size": 8}',
        "empty.txt": b"",
        "weights/model-00001-of-00001.safetensors": os.urandom(25 * 1024**2),
        "notes/größe 100%.txt": "ü".encode() * 1000,
        "long.json": b'"' + b"x" * (6 * 1024**2) + b'"',
    }
    folder = tmp_path / "model"
    for name, content in sent.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    commit = alice.upload_folder(repo_id=repo, folder_path=folder, commit_message="publish")

    snapshot = Path(snapshot_download(repo, endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token=False))
    assert snapshot.name == commit.oid
    received = {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}
    assert received == sent


def test_large_files_are_recognised_by_size_and_by_content(alice: HfApi, repo: str) -> None:
    alice.create_commit(
        repo,
        [
            CommitOperationAdd("text.json", b"{}"),
            CommitOperationAdd("umlauts.txt", b"x" + "ü".encode() * 1000),  # the sample ends inside a character
            CommitOperationAdd("unnamed", bytes(range(256))),
            CommitOperationAdd("big.json", b" " * 6_000_000),
        ],
        commit_message="kinds",
    )
    siblings = alice.model_info(repo, files_metadata=True).siblings or []
    kinds = {sibling.rfilename: sibling.lfs is not None for sibling in siblings}
    assert kinds == {"text.json": False, "umlauts.txt": False, "unnamed": True, "big.json": True}


def test_unchanged_files_make_no_commit(alice: HfApi, repo: str) -> None:
    def operations() -> list[CommitOperationAdd]:
        return [CommitOperationAdd("a.json", b"{}"), CommitOperationAdd("w.safetensors", b"\0" * 100)]

    first = alice.create_commit(repo, operations(), commit_message="first")
    second = alice.create_commit(repo, operations(), commit_message="second")
    assert second.oid == first.oid
    assert len(alice.list_repo_commits(repo)) == 2  # the initial one and the first


def test_a_commit_of_the_same_content_answers_the_head(hub: RunningHub, alice: HfApi, repo: str) -> None:
    first = alice.create_commit(repo, [CommitOperationAdd("a.txt", b"same")], commit_message="first")
    answer = httpx.post(
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        headers={"Authorization": "Bearer token-of-alice"},
        content='{"key": "header", "value": {"summary": "again"}}\n'
        '{"key": "file", "value": {"path": "a.txt", "content": "c2FtZQ==", "encoding": "base64"}}\n',
    )
    assert answer.json()["commitOid"] == first.oid


def test_wrong_bytes_are_refused_and_nothing_is_kept(hub: RunningHub, repo: str) -> None:
    before = stored_blobs(hub)
    address = upload_address(hub, repo, b"the announced bytes")
    answer = httpx.put(address, content=b"not those bytes, but")
    assert answer.status_code == 400
    assert "its link is for 19" in answer.json()["error"]
    answer = httpx.put(address, content=b"not announced bytes")
    assert answer.status_code == 400
    assert "not the announced" in answer.headers["X-Error-Message"]
    assert stored_blobs(hub) == before
    assert leftovers(hub) == []


def test_more_bytes_than_announced_are_refused_without_a_length(hub: RunningHub, repo: str) -> None:
    before = stored_blobs(hub)
    answer = httpx.put(upload_address(hub, repo, b"short"), content=iter([b"much longer ", b"than announced"]))
    assert answer.status_code == 400
    assert stored_blobs(hub) == before
    assert leftovers(hub) == []


def test_an_upload_that_breaks_off_leaves_nothing(hub: RunningHub, repo: str) -> None:
    content = os.urandom(4 * 1024**2)
    address = upload_address(hub, repo, content)

    def first_half() -> Iterator[bytes]:
        yield content[: len(content) // 2]
        raise ConnectionAbortedError("the line is cut")

    with pytest.raises(ConnectionAbortedError):
        httpx.put(address, content=first_half(), headers={"Content-Length": str(len(content))})
    while leftovers(hub):  # bounded by the test's timeout; each request gives the server a turn to notice
        httpx.get(f"{hub.endpoint}/api/models")
    assert hashlib.sha256(content).hexdigest() not in stored_blobs(hub)
    assert httpx.put(address, content=content).status_code == 200


def test_tampered_links_are_refused(hub: RunningHub, repo: str) -> None:
    content = b"content of a tampered link"
    address = upload_address(hub, repo, content)
    other = hashlib.sha256(b"other").hexdigest()
    digest = hashlib.sha256(content).hexdigest()
    for tampered in (
        address.replace(f"size={len(content)}", "size=5"),
        address.replace(digest, other),
        address.replace(repo, "bob/model"),
        address.replace("expires=", "expires=9"),
        address[:-1] + ("0" if address[-1] != "0" else "1"),
    ):
        assert tampered != address
        answer = httpx.put(tampered, content=content)
        assert answer.status_code == 403, tampered
        assert "not genuine" in answer.json()["error"]
    assert digest not in stored_blobs(hub)


def test_expired_links_are_refused(hub: RunningHub, repo: str) -> None:
    content = b"too late"
    path = UploadLinks(SECRET).path(
        RepositoryId.parse(repo), hashlib.sha256(content).hexdigest(), len(content), expires=int(time.time()) - 1
    )
    answer = httpx.put(f"{hub.endpoint}{path}", content=content)
    assert answer.status_code == 403
    assert "expired" in answer.json()["error"]


def test_links_of_another_secret_are_refused(hub: RunningHub, repo: str) -> None:
    path = UploadLinks(b"some other secret").path(RepositoryId.parse(repo), "0" * 64, 1)
    assert httpx.put(f"{hub.endpoint}{path}", content=b"x").status_code == 403


def test_signatures_do_not_reach_the_access_log(hub: RunningHub, repo: str, caplog: pytest.LogCaptureFixture) -> None:
    address = upload_address(hub, repo, b"logged")
    with caplog.at_level(logging.INFO, logger="uvicorn.access"):
        assert httpx.put(address, content=b"logged").status_code == 200
    assert "/api/uploads/" in caplog.text
    assert address.split("signature=")[1] not in caplog.text


def test_a_large_file_that_was_not_uploaded_cannot_be_committed(hub: RunningHub, repo: str) -> None:
    answer = _commit_large_file(hub, repo, "alice", hashlib.sha256(b"never sent").hexdigest())
    assert answer.status_code == 400
    assert "was not uploaded" in answer.json()["error"]


def test_knowing_a_digest_gives_no_access_to_content(hub: RunningHub, alice: HfApi, bob: HfApi) -> None:
    secret = os.urandom(1000)
    alice.create_repo("alice/vault", private=True)
    alice.upload_file(path_or_fileobj=secret, path_in_repo="w.safetensors", repo_id="alice/vault")
    bob.create_repo("bob/thief")
    answer = _commit_large_file(hub, "bob/thief", "bob", hashlib.sha256(secret).hexdigest())
    assert answer.status_code == 400
    # Whoever has the bytes may upload them; they are stored once.
    bob.upload_file(path_or_fileobj=secret, path_in_repo="w.safetensors", repo_id="bob/thief")
    assert bob.file_exists("bob/thief", "w.safetensors")


def _commit_large_file(hub: RunningHub, repo: str, name: str, digest: str) -> httpx.Response:
    return httpx.post(
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        headers={"Authorization": f"Bearer token-of-{name}"},
        content='{"key": "header", "value": {"summary": "s"}}\n'
        f'{{"key": "lfsFile", "value": {{"path": "w.bin", "algo": "sha256", "oid": "{digest}"}}}}\n',
    )


def test_a_card_with_broken_metadata_is_refused_before_anything_is_sent(alice: HfApi, repo: str) -> None:
    broken = b"---\ntags: [unclosed\n---\n"
    with pytest.raises(ValueError, match="Invalid metadata in README"):
        alice.upload_file(path_or_fileobj=broken, path_in_repo="README.md", repo_id=repo)
    assert alice.list_repo_files(repo) == []


def test_pull_requests_are_refused_clearly(alice: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match="no pull requests"):
        alice.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=repo, create_pr=True)


def test_more_than_the_disk_holds_is_refused_before_it_is_sent(hub: RunningHub, repo: str) -> None:
    answer = httpx.post(
        f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch",
        headers={"Authorization": "Bearer token-of-alice"},
        json={"operation": "upload", "objects": [{"oid": "0" * 64, "size": 2**60}]},
    )
    assert answer.status_code == 507
    assert f"needs {2**60}" in answer.json()["error"]
