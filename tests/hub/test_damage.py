"""Disks that forget: whatever was changed, cut short or lost below the Hub is refused by name and never served."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from publisher.hub.changes import AddFile, Change
from publisher.hub.commits import CommittedFile
from publisher.hub.faults import BadRequest
from publisher.hub.storage import HubStorage
from tests.hub.conftest import RunningHub

MIB = 1024**2
Spoil = Callable[[Path], None]


def flip(path: Path, position: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


EVERY_DAMAGE = pytest.mark.parametrize(
    "spoil", [flip, truncate, lengthen, Path.unlink], ids=lambda spoil: spoil.__name__
)


@dataclass(frozen=True)
class Stored:
    """A file `name` of `repo`, committed, and its blob."""

    repo: str
    name: str
    content: bytes
    blob: Path
    address: str

    def upload_again(self, api: HfApi) -> None:
        api.upload_file(path_or_fileobj=self.content, path_in_repo=self.name, repo_id=self.repo)


def store(hub: RunningHub, api: HfApi, repo: str, name: str, content: bytes) -> Stored:
    api.create_commit(repo, [CommitOperationAdd(name, content)], commit_message="stored")
    blob = hub.storage.blobs.path(hashlib.sha256(content).hexdigest())
    return Stored(repo, name, content, blob, f"{hub.endpoint}/{repo}/resolve/main/{name}")


def assert_refused(answer: httpx.Response, *words: str) -> None:
    assert answer.status_code == 503, answer.content[:100]
    for word in (*words, "damaged"):
        assert word in answer.headers["X-Error-Message"]
    assert answer.json()["error"]
    assert answer.headers["Cache-Control"] == "no-store"


@EVERY_DAMAGE
@pytest.mark.parametrize("name", ["small.json", "w.safetensors"])
def test_a_damaged_file_is_refused_by_name_until_it_is_uploaded_again(
    hub: RunningHub, alice: HfApi, repo: str, spoil: Spoil, name: str
) -> None:
    stored = store(hub, alice, repo, name, os.urandom(3000).hex().encode())
    spoil(stored.blob)
    assert_refused(httpx.get(stored.address), repr(name), repo, "Upload the same file again")
    assert_refused(httpx.get(stored.address, headers={"Range": "bytes=100-199"}), repr(name))
    stored.upload_again(alice)
    assert httpx.get(stored.address).content == stored.content
    assert httpx.get(stored.address, headers={"Range": "bytes=100-199"}).content == stored.content[100:200]


def test_damage_behind_the_first_mebibyte_cuts_the_answer_and_is_remembered(
    hub: RunningHub, alice: HfApi, repo: str, caplog: pytest.LogCaptureFixture
) -> None:
    stored = store(hub, alice, repo, "w.safetensors", os.urandom(3 * MIB))
    flip(stored.blob, 2 * MIB + 17)
    received = bytearray()

    def receive() -> None:
        with httpx.stream("GET", stored.address) as answer:
            for piece in answer.iter_bytes():
                received.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        receive()
    assert bytes(received) == stored.content[: 2 * MIB]
    assert "'w.safetensors'" in caplog.text
    assert_refused(httpx.get(stored.address), f"bytes from {2 * MIB} on")
    stored.upload_again(alice)
    assert httpx.get(stored.address).content == stored.content


def test_a_range_is_checked_on_its_own(hub: RunningHub, alice: HfApi, repo: str) -> None:
    stored = store(hub, alice, repo, "w.safetensors", os.urandom(3 * MIB))
    flip(stored.blob, 2 * MIB + 17)
    good = httpx.get(stored.address, headers={"Range": f"bytes=5-{MIB + 5}"})
    assert good.content == stored.content[5 : MIB + 6]
    assert_refused(httpx.get(stored.address, headers={"Range": f"bytes={2 * MIB}-{2 * MIB}"}))


@pytest.mark.parametrize("spoil_sums", [flip, truncate, Path.unlink], ids=lambda spoil: spoil.__name__)
def test_checksums_that_are_lost_are_made_again_from_the_whole_file(
    hub: RunningHub, alice: HfApi, repo: str, spoil_sums: Spoil
) -> None:
    stored = store(hub, alice, repo, "w.safetensors", os.urandom(2 * MIB + 5))
    sums = hub.storage.blobs.checksums.path(stored.blob.name)
    before = sums.read_bytes()
    spoil_sums(sums)
    assert httpx.get(stored.address).content == stored.content
    assert sums.read_bytes() == before
    spoil_sums(sums)
    flip(stored.blob, 2 * MIB)
    assert_refused(httpx.get(stored.address, headers={"Range": "bytes=0-0"}))


@EVERY_DAMAGE
def test_the_real_client_says_what_is_damaged_and_keeps_nothing_of_it(
    hub: RunningHub, alice: HfApi, repo: str, spoil: Spoil, tmp_path: Path
) -> None:
    stored = store(hub, alice, repo, "w.safetensors", os.urandom(2 * MIB))
    spoil(stored.blob)
    with pytest.raises(HfHubHTTPError, match=r"(?s)503.*'w\.safetensors' of .* is damaged"):
        hf_hub_download(repo, stored.name, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert not list(tmp_path.rglob("snapshots/*/*"))
    stored.upload_again(alice)
    snapshot = snapshot_download(repo, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
    assert Path(snapshot, stored.name).read_bytes() == stored.content


@EVERY_DAMAGE
@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
def test_a_description_that_needs_a_damaged_file_says_so(
    hub: RunningHub, alice: HfApi, repo: str, spoil: Spoil, name: str
) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    weights = len(header).to_bytes(8, "little") + header + os.urandom(8)
    card = f"---\nlibrary_name: {os.urandom(4).hex()}\n---\n".encode()
    stored = store(hub, alice, repo, name, card if name == "README.md" else weights)
    spoil(stored.blob)
    assert_refused(httpx.get(f"{hub.endpoint}/api/models/{repo}"), name, repo)
    listed = httpx.get(f"{hub.endpoint}/api/models?author=alice").json()
    assert next(model for model in listed if model["id"] == repo)["disabled"] is (name == "README.md")
    assert alice.list_repo_tree(repo)
    stored.upload_again(alice)
    assert alice.model_info(repo).sha


def overwrite(content: bytes) -> Spoil:
    def overwrite_with(path: Path) -> None:
        path.write_bytes(content)

    return overwrite_with


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil", [flip, truncate, overwrite(b""), overwrite(b"{}"), overwrite(b"\xff\xfe"), replace_by_folder]
)
@pytest.mark.parametrize("kind", ["commit", "branch", "settings"])
def test_damaged_records_of_a_repository_are_refused_by_name(
    hub: RunningHub, alice: HfApi, repo: str, spoil: Spoil, kind: str
) -> None:
    head = alice.create_commit(repo, [CommitOperationAdd("a.txt", b"x")], commit_message="m").oid
    folder = hub.storage.root / "repos" / repo
    places = {"commit": f"commits/{head}.json", "branch": "refs/heads/main", "settings": "repo.json"}
    spoil(folder / places[kind])
    for path in (
        f"/{repo}/resolve/main/a.txt",
        f"/api/models/{repo}",
        f"/api/models/{repo}/tree/main",
        f"/api/models/{repo}/commits/main",
    ):
        assert_refused(httpx.get(hub.endpoint + path), repo)
    commit = httpx.post(
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        headers={"Authorization": "Bearer token-of-alice"},
        content='{"key": "header", "value": {"summary": "s"}}\n'
        '{"key": "file", "value": {"path": "a.txt", "content": "eQ==", "encoding": "base64"}}\n',
    )
    assert_refused(commit, repo)
    assert httpx.get(f"{hub.endpoint}/api/models").status_code == 200


def test_a_damaged_branch_shows_in_the_list_of_branches_and_can_be_deleted(
    hub: RunningHub, alice: HfApi, repo: str
) -> None:
    alice.create_branch(repo, branch="other")
    (hub.storage.root / "repos" / repo / "refs/heads/other").write_bytes(b"nonsense")
    assert_refused(httpx.get(f"{hub.endpoint}/api/models/{repo}/refs"), "'other'")
    alice.delete_branch(repo, branch="other")
    assert [branch.name for branch in alice.list_repo_refs(repo).branches] == ["main"]


def test_a_damaged_large_file_cannot_be_committed_again_without_its_bytes(
    hub: RunningHub, alice: HfApi, repo: str
) -> None:
    stored = store(hub, alice, repo, "w.safetensors", os.urandom(500))
    truncate(stored.blob)
    line = f'{{"key": "lfsFile", "value": {{"path": "v.bin", "algo": "sha256", "oid": "{stored.blob.name}"}}}}'
    answer = httpx.post(
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        headers={"Authorization": "Bearer token-of-alice"},
        content='{"key": "header", "value": {"summary": "s"}}\n' + line,
    )
    assert answer.status_code == 400
    assert "was not uploaded" in answer.json()["error"]


def test_a_file_that_is_put_back_by_hand_is_served_again(hub: RunningHub, alice: HfApi, repo: str) -> None:
    stored = store(hub, alice, repo, "a.json", os.urandom(100).hex().encode())
    flip(stored.blob)
    assert_refused(httpx.get(stored.address))
    stored.blob.write_bytes(stored.content)  # the same file, as from a backup
    assert httpx.get(stored.address).content == stored.content


def test_a_commit_does_not_name_what_was_collected_meanwhile(tmp_path: Path) -> None:
    storage = HubStorage(tmp_path)
    from tests.hub.test_storage import LAB, MODEL

    repository = storage.create_repository(MODEL, LAB, private=False)
    file = CommittedFile.regular(b"x", storage.blobs.put(b"x"))
    storage.blobs.path(file.sha256).unlink()
    with pytest.raises(BadRequest, match=r"'a\.txt' is not stored any more"):
        repository.commit(Change("main", "t", "", "lab", (AddFile("a.txt", file),)))
