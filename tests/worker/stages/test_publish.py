"""Against the embedded Hub on a real port, through huggingface_hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, snapshot_download

from publisher.checkpoint import signature
from publisher.errors import CredentialFault, InfrastructureFault, JobCancelled, RequestFault
from publisher.manifest.evaluation import EvaluationReport
from publisher.manifest.manifest import Manifest, record, verify
from publisher.manifest.verdict import Requirement
from publisher.recipe import Evaluation
from tests.checkpoint.published import make_keys
from tests.servers import free_port
from tests.worker.card.test_card import evaluation
from tests.worker.stages.conftest import RECIPE, RunningHub
from worker.context import RecordingContext
from worker.request import BuildRequest
from worker.stages import publish
from worker.stages.inputs import PublishInputs

Output = Callable[[], Path]


@dataclass
class Meddling(RecordingContext):
    """Somebody else commits to the repository in the middle of each of the first `times` attempts."""

    api: HfApi = field(default_factory=HfApi)
    repo_id: str = ""
    times: int = 1
    armed: bool = True

    def check(self) -> None:
        if self.armed and self.times and self.fraction > 0.3:
            self.times, self.armed = self.times - 1, False
            self.api.upload_file(
                path_or_fileobj=b"note %d" % self.times, path_in_repo="notes.txt", repo_id=self.repo_id
            )

    def log(self, message: str) -> None:
        super().log(message)
        self.armed = True


@dataclass
class Cancelled(RecordingContext):
    """Asked to stop once half of the work is done."""

    def check(self) -> None:
        if self.fraction > 0.5:
            raise JobCancelled("stopped")


def commits(hub: RunningHub, repo_id: str) -> list[str]:
    return [commit.commit_id for commit in hub.api().list_repo_commits(repo_id)]


def files(hub: RunningHub, repo_id: str) -> set[str]:
    return set(hub.api().list_repo_files(repo_id)) - {".gitattributes"}


def run(hub: RunningHub, repo_id: str, checkpoint: Path, folder: Path, **request: Any) -> str:
    publish.run(hub.request(repo_id, **request), PublishInputs(checkpoint), folder, RecordingContext())
    return str(json.loads((folder / "publication.json").read_text())["commit"])


def republished(checkpoint: Path, remove: str, add: str) -> None:
    """Turn the folder into another checkpoint, without one file and with another."""
    (checkpoint / remove).unlink()
    (checkpoint / add).write_text("new")
    manifest = Manifest.read(checkpoint)
    paths = [path for path in checkpoint.iterdir() if path.name != "loram.json"]
    manifest.model_copy(update={"files": {path.name: record(path) for path in paths}}).write(checkpoint)


def test_published_revision_is_the_checkpoint(
    hub: RunningHub, checkpoint: Path, output: Output, tmp_path: Path
) -> None:
    folder = output()
    commit = run(hub, "org/one", checkpoint, folder)
    publication = json.loads((folder / "publication.json").read_text())
    assert publication["url"] == f"{hub.endpoint}/org/one"
    assert publication["files"].keys() == {path.name for path in checkpoint.iterdir()}
    arrived = snapshot_download(
        "org/one", revision=commit, endpoint=hub.endpoint, token="hub-token-of-org", cache_dir=tmp_path / "cache"
    )
    assert verify(Path(arrived)) == []
    assert (Path(arrived) / "loram.json").read_bytes() == (checkpoint / "loram.json").read_bytes()


def test_publishing_is_one_commit(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    hub.api().create_repo("org/counted")
    before = commits(hub, "org/counted")
    commit = run(hub, "org/counted", checkpoint, output())
    assert commits(hub, "org/counted") == [commit, *before]


def test_worker_that_died_after_the_commit_publishes_once(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    first = run(hub, "org/once", checkpoint, output())
    history = commits(hub, "org/once")
    assert run(hub, "org/once", checkpoint, output()) == first
    assert commits(hub, "org/once") == history


def test_the_log_says_what_was_published_where(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    context = RecordingContext()
    publish.run(hub.request("org/told"), PublishInputs(checkpoint), output(), context)
    assert context.messages[-1] == (
        f"The checkpoint is published in org/told as {hub.api().model_info('org/told').sha}, and was read back."
    )


def test_newer_checkpoint_takes_files_of_the_older_one_away_and_leaves_others(
    hub: RunningHub, checkpoint: Path, output: Output
) -> None:
    run(hub, "org/twice", checkpoint, output())
    for name in ("notes.txt", "model-00001-of-00002.safetensors"):
        hub.api().upload_file(path_or_fileobj=b"x", path_in_repo=name, repo_id="org/twice")
    republished(checkpoint, remove="generation_config.json", add="chat_template.jinja")
    run(hub, "org/twice", checkpoint, output())
    assert files(hub, "org/twice") == {path.name for path in checkpoint.iterdir()} | {"notes.txt"}


def test_signature_is_published_once_and_goes_with_what_it_signed(
    hub: RunningHub, checkpoint: Path, output: Output, tmp_path: Path
) -> None:
    key = make_keys(tmp_path).key
    named = {**Manifest.read(checkpoint).files, "loram.json": record(checkpoint / "loram.json")}
    signature.sign(checkpoint, "org/signed-once", named, key)
    first = run(hub, "org/signed-once", checkpoint, output())
    assert "model.sig" in files(hub, "org/signed-once")
    assert run(hub, "org/signed-once", checkpoint, output()) == first  # no second commit, though signing is random
    (checkpoint / "model.sig").unlink()
    assert run(hub, "org/signed-once", checkpoint, output()) != first
    assert files(hub, "org/signed-once") == {path.name for path in checkpoint.iterdir()}


def test_head_that_moves_meanwhile_is_read_again(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    context = Meddling(api=hub.api(), repo_id="org/moving")
    publish.run(hub.request("org/moving"), PublishInputs(checkpoint), output(), context)
    assert any("has moved on" in message for message in context.messages)
    assert files(hub, "org/moving") == {path.name for path in checkpoint.iterdir()} | {"notes.txt"}


def test_head_that_never_rests_is_given_up(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    context = Meddling(api=hub.api(), repo_id="org/restless", times=1000)
    with pytest.raises(InfrastructureFault, match="changed by others"):
        publish.run(hub.request("org/restless"), PublishInputs(checkpoint), output(), context)
    assert files(hub, "org/restless") == {"notes.txt"}


def test_bytes_that_come_back_changed_are_a_fault(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    hub.damaged.add("model.safetensors")
    try:
        with pytest.raises(InfrastructureFault, match=r"model\.safetensors came back with \d+ bytes, sha256"):
            run(hub, "org/damaged", checkpoint, output())
    finally:
        hub.damaged.clear()


def test_cancelled_job_publishes_nothing(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    with pytest.raises(JobCancelled):
        publish.run(hub.request("org/cancelled"), PublishInputs(checkpoint), output(), Cancelled())
    assert files(hub, "org/cancelled") == set()


def test_progress_counts_bytes_to_the_end(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    """Once for each of the two things that are done with them, by name."""
    told: list[tuple[float, float, str]] = []

    class Counting(RecordingContext):
        def progress(self, done: float, total: float, unit: str) -> None:
            told.append((done, total, unit))

    publish.run(hub.request("org/progress"), PublishInputs(checkpoint), output(), Counting())
    last = {unit: (done, total) for done, total, unit in told}
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert list(last) == ["bytes sent", "bytes read back"]
    assert {total for _, total in last.values()} == {size}
    assert all(done > 0.9 * total for done, total in last.values())


def test_private_checkpoint_is_private(hub: RunningHub, checkpoint: Path, output: Output) -> None:
    run(hub, "org/hidden", checkpoint, output(), private=True)
    assert hub.api().model_info("org/hidden").private


def test_private_checkpoint_is_not_put_into_a_public_repository(
    hub: RunningHub, checkpoint: Path, output: Output
) -> None:
    hub.api().create_repo("org/public")
    with pytest.raises(RequestFault, match="org/public exists and is public"):
        run(hub, "org/public", checkpoint, output(), private=True)
    assert files(hub, "org/public") == set()


@pytest.mark.parametrize(("repo_id", "token"), [("org/x", "hub-token-unknown"), ("org/x", "hub-token-of-rival")])
def test_refused_token_is_waited_for_and_stays_secret(
    hub: RunningHub, checkpoint: Path, output: Output, repo_id: str, token: str
) -> None:
    hub.api().create_repo("org/x", exist_ok=True)
    with pytest.raises(CredentialFault, match="PUBLISHER_HUB_TOKEN") as caught:
        run(hub, repo_id, checkpoint, output(), token=token)
    assert token not in str(caught.value)


def test_hub_that_does_not_answer_is_infrastructure(checkpoint: Path, output: Output) -> None:
    nowhere = RunningHub(f"http://127.0.0.1:{free_port()}/hub", set())
    with pytest.raises(InfrastructureFault, match="did not answer"):
        run(nowhere, "org/x", checkpoint, output())


@pytest.mark.parametrize("repo_id", ["model", "a/b/c", "org/has space", "org/--x", "org/model.git", ""])
def test_name_that_hubs_refuse_is_the_requests_fault(
    hub: RunningHub, checkpoint: Path, output: Output, repo_id: str
) -> None:
    with pytest.raises(RequestFault) as caught:
        run(hub, repo_id, checkpoint, output())
    assert caught.value.field == "publish.repo_id"


def test_process_that_would_use_xet_says_how_to_start_it(checkpoint: Path, output: Output) -> None:
    code = (
        "import huggingface_hub\n"
        "from worker.stages.publish import _refuse_xet\n"
        "try: _refuse_xet()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"HF_HUB_DISABLE_XET": "0"}
    )
    assert result.stdout.startswith("InfrastructureFault")
    assert "HF_HUB_DISABLE_XET=1" in result.stdout


PASSED, FAILED = evaluation(64.0), evaluation(80.0)
UNSURE, TINY, FEW = evaluation(64.0, error=0.1), evaluation(76.55, error=1e-5), evaluation(64.0, documents=7)


@pytest.mark.parametrize(
    ("report", "required"), [(PASSED, True), (UNSURE, "unless_failed"), (FEW, "unless_failed"), (FAILED, False)]
)
def test_checkpoint_that_has_what_its_recipe_requires_is_published(
    hub: RunningHub, checkpoint: Path, output: Output, report: EvaluationReport, required: Requirement
) -> None:
    request = certified(hub, "org/certified", checkpoint, report, required)
    publish.run(request, PublishInputs(checkpoint), output(), RecordingContext())
    assert "loram.json" in files(hub, "org/certified")


@pytest.mark.parametrize(
    ("report", "required", "said"),
    [
        (
            FAILED,
            True,
            r"the certificate's verdict is failed: .* rises by 0\.0434 .*, significantly\. Perplexity: 76\.6, and 80 "
            "with it.*require_certificate false",
        ),
        (FAILED, "unless_failed", "verdict is failed.*require_certificate false"),
        (UNSURE, True, r"is not significant: .* not more than 2 standard errors.*evaluation\.tokens"),
        (TINY, True, r"is negligible: .* significant but less than 0\.001.*probe_budget\.steps"),
        (FEW, True, 'is inconclusive: .*7 held-out documents.*at least 8.*held_out_fraction.*"unless_failed"'),
    ],
)
def test_checkpoint_without_it_is_the_request_s_fault_and_not_published(
    hub: RunningHub, checkpoint: Path, output: Output, report: EvaluationReport, required: Requirement, said: str
) -> None:
    request = certified(hub, "org/uncertified", checkpoint, report, required)
    with pytest.raises(RequestFault, match=said) as refused:
        publish.run(request, PublishInputs(checkpoint), output(), RecordingContext())
    assert "Finished stages are kept" in str(refused.value)
    assert refused.value.field == "recipe.evaluation.require_certificate"
    assert not hub.api().repo_exists("org/uncertified")
    assert verify(checkpoint) == []


def certified(
    hub: RunningHub, repo_id: str, checkpoint: Path, report: EvaluationReport, required: Requirement
) -> BuildRequest:
    Manifest.read(checkpoint).model_copy(update={"evaluation": report}).write(checkpoint)
    recipe = RECIPE.model_copy(update={"evaluation": Evaluation(corpora=["moby"], require_certificate=required)})
    return replace(hub.request(repo_id), recipe=recipe)
