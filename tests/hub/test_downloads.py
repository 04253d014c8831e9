"""Files on their way out."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import httpx
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.numpy import save

from tests.hub.conftest import RunningHub


def commit(api: HfApi, repo: str, files: dict[str, bytes], revision: str | None = None) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return str(api.create_commit(repo, operations, commit_message="files", revision=revision).oid)


def test_branch_tag_and_commit_each_give_their_own_content(
    hub: RunningHub, alice: HfApi, repo: str, tmp_path: Path
) -> None:
    first = commit(alice, repo, {"a.txt": b"tagged"})
    alice.create_tag(repo, tag="v1.0")
    alice.create_branch(repo, branch="feature/x")
    commit(alice, repo, {"a.txt": b"on the branch"}, "feature/x")
    commit(alice, repo, {"a.txt": b"on main"})
    wanted = {"v1.0": b"tagged", first: b"tagged", "feature/x": b"on the branch", "main": b"on main", None: b"on main"}
    for revision, content in wanted.items():
        path = hf_hub_download(repo, "a.txt", revision=revision, endpoint=hub.endpoint, cache_dir=tmp_path, token=False)
        assert Path(path).read_bytes() == content, revision


def test_etags_are_what_git_and_sha256_say(hub: RunningHub, alice: HfApi, repo: str) -> None:
    large = os.urandom(5000)
    oid = commit(alice, repo, {"a.txt": b"hello\n", "w.bin": large})
    small = httpx.head(f"{hub.endpoint}/{repo}/resolve/main/a.txt")
    assert small.headers["ETag"] == '"ce013625030ba8dba906f756967f9e9ca394464a"'  # git hash-object says so
    assert small.headers["X-Repo-Commit"] == oid
    assert small.headers["Content-Length"] == "6"
    assert "X-Linked-ETag" not in small.headers
    big = httpx.head(f"{hub.endpoint}/{repo}/resolve/main/w.bin")
    assert big.headers["X-Linked-ETag"] == big.headers["ETag"] == f'"{hashlib.sha256(large).hexdigest()}"'
    assert big.headers["X-Linked-Size"] == big.headers["Content-Length"] == "5000"
    assert big.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("0-99", 0, 100), ("900-", 900, 1000), ("-10", 990, 1000), ("990-5000", 990, 1000)]
)
def test_ranges(hub: RunningHub, alice: HfApi, repo: str, asked: str, start: int, stop: int) -> None:
    content = os.urandom(1000)
    commit(alice, repo, {f"{asked}.bin": content})
    answer = httpx.get(f"{hub.endpoint}/{repo}/resolve/main/{asked}.bin", headers={"Range": f"bytes={asked}"})
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1000"
    assert answer.content == content[start:stop]


def test_a_range_beyond_the_end_is_416(hub: RunningHub, alice: HfApi, repo: str) -> None:
    commit(alice, repo, {"a.txt": b"short"})
    answer = httpx.get(f"{hub.endpoint}/{repo}/resolve/main/a.txt", headers={"Range": "bytes=5-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */5"


def test_an_unchanged_file_is_not_sent_again(hub: RunningHub, alice: HfApi, repo: str) -> None:
    commit(alice, repo, {"a.txt": b"same"})
    address = f"{hub.endpoint}/{repo}/resolve/main/a.txt"
    etag = httpx.head(address).headers["ETag"]
    assert httpx.get(address, headers={"If-None-Match": etag}).status_code == 304
    assert httpx.get(address, headers={"If-None-Match": '"other"'}).content == b"same"


def test_pages_that_somebody_publishes_do_not_run_in_the_browser(hub: RunningHub, alice: HfApi, repo: str) -> None:
    commit(alice, repo, {"page.html": b"<script>alert(1)</script>"})
    headers = httpx.get(f"{hub.endpoint}/{repo}/resolve/main/page.html").headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"].startswith("attachment")
    assert "sandbox" in headers["Content-Security-Policy"]


def test_what_is_missing_raises_the_clients_own_exceptions(
    hub: RunningHub, alice: HfApi, repo: str, tmp_path: Path
) -> None:
    def download(repo_id: str, path: str, revision: str | None = None) -> str:
        return hf_hub_download(
            repo_id, path, revision=revision, endpoint=hub.endpoint, cache_dir=tmp_path, token="token-of-alice"
        )

    oid = commit(alice, repo, {"a.txt": b"x"})
    with pytest.raises(EntryNotFoundError, match=r"has no file 'b\.txt'"):
        download(repo, "b.txt")
    with pytest.raises(RevisionNotFoundError, match="has no revision 'v9'"):
        download(repo, "a.txt", "v9")
    with pytest.raises(RevisionNotFoundError):
        download(repo, "a.txt", "0" * 40)
    with pytest.raises(RepositoryNotFoundError, match="no repository 'alice/nothing'"):
        download("alice/nothing", "a.txt")
    with pytest.raises(RepositoryNotFoundError, match="called namespace/name"):
        download("gpt2", "a.txt")
    with pytest.raises(RepositoryNotFoundError, match="keeps models only"):
        alice.dataset_info("alice/data")
    # The client remembers that the file was not there at this commit.
    assert list(tmp_path.glob(f"models--*/.no_exist/{oid}/b.txt"))


def test_safetensors_metadata_of_one_file_and_of_shards(alice: HfApi, repo: str) -> None:
    tensors = {"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}
    commit(alice, repo, {"model.safetensors": save(tensors), "pruning_masks.safetensors": save(tensors)})
    metadata = alice.get_safetensors_metadata(repo)
    assert metadata.parameter_count == {"F32": 12, "F16": 5}
    described = alice.model_info(repo)
    assert described.safetensors is not None
    assert described.safetensors.parameters == {"F32": 12, "F16": 5}
    assert described.safetensors.total == 17
    assert described.tags == ["safetensors"]

    alice.create_branch(repo, branch="sharded")
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    shards = {"model-1.safetensors": save({"a": tensors["a"]}), "model-2.safetensors": save({"b": tensors["b"]})}
    alice.delete_file("model.safetensors", repo, revision="sharded")
    commit(alice, repo, shards | {"model.safetensors.index.json": json.dumps(index).encode()}, "sharded")
    sharded = alice.get_safetensors_metadata(repo, revision="sharded")
    assert sharded.parameter_count == {"F32": 12, "F16": 5}
    assert sharded.sharded


@pytest.mark.parametrize(
    "content", [b"", b"short", struct.pack("<Q", 2**40), struct.pack("<Q", 4) + b"null", struct.pack("<Q", 3) + b"{{{"]
)
def test_damaged_weights_do_not_break_the_description(alice: HfApi, repo: str, content: bytes) -> None:
    commit(alice, repo, {"model.safetensors": content})
    assert alice.model_info(repo).safetensors is None


def test_the_python_api_finds_the_same_bytes(hub: RunningHub, alice: HfApi, repo: str) -> None:
    large = os.urandom(2000)
    oid = commit(alice, repo, {"sub/w.bin": large})
    file = hub.storage.open_repository(repo).resolve("main", "sub/w.bin")
    assert (file.commit, file.size, file.sha256) == (oid, 2000, hashlib.sha256(large).hexdigest())
    assert file.path.read_bytes() == large
