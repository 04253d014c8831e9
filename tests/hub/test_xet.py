"""Clients as pip installs them, with Xet, which they insist on: they push what they can, and hear about the rest."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from huggingface_hub import HfApi, hf_hub_download

from publisher.hub.uploads import MAX_INLINE_BYTES, OWN_CLIENT, inline_limit
from tests.hub.conftest import RunningHub

MIB = 1024**2
WEIGHTS = "adapter_model.safetensors"
PUSH = """
import sys
from huggingface_hub import HfApi, constants
assert not constants.HF_HUB_DISABLE_XET
api = HfApi()
api.create_repo(sys.argv[1], exist_ok=True)
getattr(api, sys.argv[2])(repo_id=sys.argv[1], **dict(argument.split("=", 1) for argument in sys.argv[3:]))
"""


def push(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    with_xet = {name: value for name, value in environment.items() if name != "HF_HUB_DISABLE_XET"}
    return subprocess.run(
        [sys.executable, "-c", PUSH, *arguments], env=with_xet, check=False, capture_output=True, text=True, timeout=120
    )


def test_this_installation_has_what_the_tests_are_about() -> None:
    assert find_spec("hf_xet") is not None


@pytest.mark.parametrize("how", ["upload_folder", "upload_file"])
def test_a_stock_client_pushes_an_adapter(
    hub: RunningHub, alice: HfApi, client_environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    folder, repo = tmp_path / "adapter", f"alice/stock-{how.replace('_', '-')}"
    folder.mkdir()
    weights = os.urandom(25 * MIB + 1)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    what = {
        "upload_folder": [f"folder_path={folder}"],
        "upload_file": [
            f"path_or_fileobj={folder}/adapter_model.safetensors",
            "path_in_repo=adapter_model.safetensors",
        ],
    }
    for _ in range(2):  # again, without a change: no new commit
        done = push(client_environment, repo, how, *what[how])
        assert done.returncode == 0, done.stderr[-2000:]
    assert len(alice.list_repo_commits(repo)) == 2
    listed = {sibling.rfilename: sibling for sibling in alice.model_info(repo, files_metadata=True).siblings or []}
    pointer = listed["adapter_model.safetensors"].lfs
    assert pointer is not None
    assert pointer.sha256 == hashlib.sha256(weights).hexdigest()
    got = hf_hub_download(
        repo, "adapter_model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path / "cache", token=False
    )
    assert Path(got).read_bytes() == weights


@pytest.mark.parametrize("how", ["upload_folder", "upload_file"])
def test_what_is_too_large_for_that_ends_in_words_that_help(
    client_environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(MAX_INLINE_BYTES + 1)
    what = {
        "upload_folder": [f"folder_path={folder}"],
        "upload_file": [f"path_or_fileobj={folder}/model.safetensors", "path_in_repo=model.safetensors"],
    }
    done = push(client_environment, "alice/too-large", how, *what[how])
    assert done.returncode != 0
    assert "HF_HUB_DISABLE_XET=1" in done.stderr


def test_the_refusal_itself_says_what_to_set(hub: RunningHub, repo: str) -> None:
    answer = httpx.get(f"{hub.endpoint}/api/models/{repo}/xet-write-token/main", follow_redirects=True)
    assert answer.status_code == 404
    assert "HF_HUB_DISABLE_XET=1" in answer.headers["X-Error-Message"]
    assert "HF_HUB_DISABLE_XET=1" in answer.json()["error"]


@pytest.mark.parametrize(
    ("agent", "limit"),
    [
        ("unknown/None; hf_hub/2.4.0; python/3.11.7", MAX_INLINE_BYTES),
        ("transformers/5.23.0; hf_hub/1.20.0; python/3.11.7", MAX_INLINE_BYTES),
        ("unknown/None; hf_hub/1.19.0; python/3.11.7", 0),
        ("unknown/None; hf_hub/0.36.0; hf_xet/1.1", 0),
        (f"{OWN_CLIENT}/0.1.0; hf_hub/2.4.0", 0),
        ("git-lfs/3.4", 0),
        ("", 0),
    ],
)
def test_only_clients_that_insist_on_xet_send_large_files_in_the_commit(agent: str, limit: int) -> None:
    assert inline_limit(agent) == limit


def test_a_commit_does_not_get_larger_than_clients_memory_allows(hub: RunningHub, repo: str) -> None:
    files = [{"path": f"{n}.safetensors", "size": size * MIB, "sample": ""} for n, size in enumerate((60, 30, 60, 5))]
    answer = httpx.post(
        f"{hub.endpoint}/api/models/{repo}/preupload/main",
        headers={"Authorization": "Bearer token-of-alice", "User-Agent": "hf_hub/2.4.0"},
        json={"files": files},
    )
    assert [file["uploadMode"] for file in answer.json()["files"]] == ["regular", "regular", "lfs", "regular"]


def _commit(hub: RunningHub, repo: str, *lines: bytes) -> httpx.Response:
    return httpx.post(
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        headers={"Authorization": "Bearer token-of-alice"},
        content=b'{"key": "header", "value": {"summary": "s"}}\n' + b"\n".join(lines),
        timeout=60,
    )


def _line(path: str, text: bytes) -> bytes:
    return b'{"key": "file", "value": {"content": "%s", "path": "%s", "encoding": "base64"}}' % (text, path.encode())


def test_several_long_files_in_one_commit_keep_their_own_contents(hub: RunningHub, repo: str) -> None:
    contents = {f"{n}.bin": os.urandom(11 * MIB + n) for n in range(3)} | {"small.txt": b"small"}
    answer = _commit(hub, repo, *(_line(path, base64.b64encode(content)) for path, content in contents.items()))
    assert answer.status_code == 200, answer.text
    for path, content in contents.items():
        assert httpx.get(f"{hub.endpoint}/{repo}/resolve/main/{path}").content == content


@pytest.mark.parametrize(
    "broken",
    [
        b"A" * 16_000_000 + b"!" * 4,  # no base64
        b"A" * 16_000_001,  # ends within a group of four
        b"A" * (MAX_INLINE_BYTES // 3 * 4 + 8),  # too much
    ],
    ids=["letters", "length", "size"],
)
def test_a_long_content_that_is_broken_is_refused_and_nothing_stays(hub: RunningHub, repo: str, broken: bytes) -> None:
    assert _commit(hub, repo, _line("a.bin", broken)).status_code == 400
    assert _commit(hub, repo, _line("a.bin", broken)[:16_000_000]).status_code == 400
    assert json.loads(httpx.get(f"{hub.endpoint}/api/models/{repo}/tree/main").content) == []
    assert list((hub.storage.root / "incoming").iterdir()) == []
