from __future__ import annotations

import json
from pathlib import Path

from publisher.jobs.transitions import PublishedFile
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import PublicationReport
from publisher.recipe.stages import Stage
from tests.manifest.contents import content
from worker.jobs.outcome import read_outcome

PUBLISHED = {
    "endpoint": "https://hub.example",
    "repo_id": "org/small",
    "commit": "c" * 40,
    "url": "https://hub.example/x",
}


def test_what_is_stored_is_the_manifest_as_it_was_published(tmp_path: Path) -> None:
    files = {"loram.json": {"size": 5, "sha256": "0" * 64}}
    (tmp_path / "publication.json").write_text(
        PublicationReport.model_validate(PUBLISHED | {"files": files}).model_dump_json()
    )
    Manifest.parse(content(newer={"kept": True}), "here").write(tmp_path)
    outcome = read_outcome({Stage.PUBLISH: tmp_path, Stage.PACKAGE: tmp_path})
    assert outcome.publication.model_dump(mode="json") == PUBLISHED
    assert outcome.files == [PublishedFile("loram.json", 5, "0" * 64)]
    assert outcome.manifest.model_dump(mode="json") == json.loads((tmp_path / "loram.json").read_text())
