"""The way of a downstream user: the checkpoint lies on a Hub, the adapter here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from publisher.checkpoint.folder import open_checkpoint
from publisher.client.recover import recover
from publisher.errors import NotFound
from publisher.manifest.manifest import verify
from tests.checkpoint.pruned import lora, make_pair
from tests.worker.stages.conftest import RunningHub
from worker.context import RecordingContext
from worker.stages import publish
from worker.stages.inputs import PublishInputs


@pytest.fixture
def published(hub: RunningHub, checkpoint: Path, output: Callable[[], Path]) -> str:
    publish.run(hub.request("org/downstream"), PublishInputs(checkpoint), output(), RecordingContext())
    return "org/downstream"


def test_recovery_needs_the_repositorys_name_only(hub: RunningHub, published: str, tmp_path: Path) -> None:
    lora(make_pair().pruned).save_pretrained(tmp_path / "adapter")
    arguments = [str(tmp_path / "adapter"), "--checkpoint", published, "--endpoint", hub.endpoint]
    result = CliRunner().invoke(recover, [*arguments, "--output", str(tmp_path / "recovered")])
    assert result.exit_code == 0, result.output
    assert f"from_pretrained('org/base', revision='{'c' * 40}')" in result.stdout
    assert (tmp_path / "recovered" / "adapter_model.safetensors").is_file()


def test_whole_checkpoint_is_downloaded_when_its_weights_are_wanted(hub: RunningHub, published: str) -> None:
    assert verify(open_checkpoint(published, endpoint=hub.endpoint)) == []


def test_repository_or_revision_that_is_not_there_is_not_found(hub: RunningHub, published: str) -> None:
    with pytest.raises(NotFound, match=r"there is no repository .*HF_TOKEN"):
        open_checkpoint("org/absent", endpoint=hub.endpoint)
    with pytest.raises(NotFound, match="has no revision"):
        open_checkpoint(published, revision="0" * 40, endpoint=hub.endpoint)
