"""Fetching from a real Hub with the real client."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from publisher.base_model.facts import inspect_repository
from publisher.errors import InfrastructureFault, JobCancelled, PublisherError
from publisher.recipe.stages import Stage
from tests.hub.conftest import RunningHub, hub  # noqa: F401 - a fixture
from tests.models import tiny_llama
from tests.worker.stages.building import recipe
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages import fetch
from worker.stages.inputs import FetchInputs
from worker.storage.store import StageStore

REPO = "alice/tiny-llama"
TOKEN = "token-of-alice"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "base", max_shard_size="30KB")


@pytest.fixture(scope="module")
def repository(hub: RunningHub, model: Path) -> BaseModelSource:  # noqa: F811
    api: HfApi = hub.api("alice")
    api.create_repo(REPO, private=True, exist_ok=True)
    (model / "notes.bin").write_bytes(b"a pickle, which is never fetched")
    api.upload_folder(repo_id=REPO, folder_path=model)
    (model / "notes.bin").unlink()
    facts = inspect_repository(REPO, None, hub.endpoint, TOKEN)
    return BaseModelSource(REPO, facts.revision, None, hub.endpoint, TOKEN)


def run(source: BaseModelSource, stages: Path, context: RecordingContext) -> Path:
    request = BuildRequest(source, recipe(), {})
    folder, _ = StageStore(stages).produce(
        Stage.FETCH, fetch.digest(request, {}), lambda output: fetch.run(request, FetchInputs(), output, context)
    )
    return folder


def test_the_pinned_files_arrive_with_their_digests(repository: BaseModelSource, model: Path, tmp_path: Path) -> None:
    context = RecordingContext()
    folder = run(repository, tmp_path, context)
    listed = json.loads((folder / "base.json").read_text())
    assert listed["revision"] == repository.revision
    assert {name: facts["sha256"] for name, facts in listed["files"].items()} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in model.iterdir()
    }
    assert sorted(path.name for path in folder.iterdir()) == ["base", "base.json", "stage.json"]
    assert sorted(path.name for path in (folder / "base").iterdir()) == sorted(path.name for path in model.iterdir())
    assert context.fraction == 1.0


def test_a_cancelled_download_goes_on_with_what_has_arrived(repository: BaseModelSource, tmp_path: Path) -> None:
    class CancelledLate(RecordingContext):
        def check(self) -> None:
            if self.fraction > 0.6:
                raise JobCancelled("cancelled")

    with pytest.raises(JobCancelled):
        run(repository, tmp_path, CancelledLate())
    (kept,) = (tmp_path / ".partial").glob("fetch-*/state/download")
    arrived = {path.name: path.stat().st_ino for path in kept.glob("*.safetensors")}
    assert arrived
    folder = run(repository, tmp_path, RecordingContext())
    assert arrived == {name: (folder / "base" / name).stat().st_ino for name in arrived}


def test_a_hub_that_does_not_answer_is_infrastructure(repository: BaseModelSource, tmp_path: Path) -> None:
    gone = BaseModelSource(REPO, repository.revision, None, "http://127.0.0.1:9", TOKEN)
    with pytest.raises(InfrastructureFault, match="did not answer"):
        run(gone, tmp_path, RecordingContext())


def test_a_repository_without_access_is_refused_without_the_token_in_the_message(
    repository: BaseModelSource, tmp_path: Path
) -> None:
    other = BaseModelSource(REPO, repository.revision, None, repository.endpoint, "token-of-bob")
    with pytest.raises(PublisherError, match="private") as caught:
        run(other, tmp_path, RecordingContext())
    assert "token-of-bob" not in str(caught.value)
