"""What others check a signature with: the library's own command, on what a Hub's client downloads."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from publisher.checkpoint.verification import verify_checkpoint
from tests.checkpoint.published import IN_4_BITS, Keys, build, make_base, make_keys
from tests.docs.blocks import ROOT, blocks_of
from tests.worker.stages.conftest import RunningHub, hub  # noqa: F401 - a fixture
from worker.context import RecordingContext
from worker.stages import publish
from worker.stages.inputs import PublishInputs

REPO, TOKEN = "org/signed", "hub-token-of-org"


def command() -> list[str]:
    """As docs/verify.md has it."""
    (line,) = [
        line
        for block in blocks_of(ROOT / "docs" / "verify.md")
        for line in block.text.splitlines()
        if "model_signing verify" in line
    ]
    program, *arguments = shlex.split(line)
    assert program == "python"
    return [sys.executable, *arguments]


def asked(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command(), *more], cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """`publisher.pem` is the public one, as the page calls it."""
    folder = tmp_path_factory.mktemp("keys")
    keys = make_keys(folder)
    keys.public.rename(folder / "publisher.pem")
    return Keys(keys.key, keys.private, folder / "publisher.pem")


@pytest.fixture(scope="module")
def published(hub: RunningHub, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> RunningHub:  # noqa: F811
    folder = tmp_path_factory.mktemp("built")
    checkpoint = build(folder / "checkpoint", make_base(folder / "base"), IN_4_BITS, keys.key)
    (folder / "output").mkdir()
    publish.run(hub.request(REPO), PublishInputs(checkpoint), folder / "output", RecordingContext())
    lfs = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"  # as huggingface.co puts it into every repository
    hub.api().upload_file(path_or_fileobj=lfs, path_in_repo=".gitattributes", repo_id=REPO)
    return hub


def download(hub: RunningHub, **where: Path) -> Path:  # noqa: F811
    return Path(snapshot_download(REPO, endpoint=hub.endpoint, token=TOKEN, **where))


def test_the_documented_command_accepts_a_download(published: RunningHub, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "publisher.pem").write_bytes(keys.public.read_bytes())
    folder = download(published, local_dir=tmp_path / "checkpoint")
    assert (folder / ".cache" / "huggingface").is_dir()
    assert (folder / ".gitattributes").is_file()
    done = asked(tmp_path)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr


@pytest.mark.long
def test_the_documented_command_names_what_was_changed(published: RunningHub, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "publisher.pem").write_bytes(keys.public.read_bytes())
    folder = download(published, local_dir=tmp_path / "checkpoint")
    (folder / "config.json").write_text("{}")
    done = asked(tmp_path)
    assert done.returncode == 1
    assert "Hash mismatch for 'config.json'" in done.stderr


def test_a_download_into_the_cache_is_whole_and_signed(published: RunningHub, keys: Keys, tmp_path: Path) -> None:
    """Its files are links."""
    folder = download(published, cache_dir=tmp_path / "cache")
    assert (folder / "config.json").is_symlink()
    found = verify_checkpoint(folder, public_key=keys.public)
    assert (found.problems, found.others, found.signed_by) == ((), (), keys.key.id)
    assert verify_checkpoint(download(published, local_dir=tmp_path / "local"), public_key=keys.public).problems == ()
