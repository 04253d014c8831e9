"""What a finished build leaves in the database, read from the folders of its last stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.jobs.transitions import PublishedFile
from publisher.manifest.manifest import FILE_NAME as MANIFEST
from publisher.recipe.stages import Stage


@dataclass(frozen=True)
class Outcome:
    """`publication` is {endpoint, repo_id, commit, url}, `manifest` the checkpoint's loram.json."""

    publication: dict[str, Any]
    manifest: dict[str, Any]
    files: list[PublishedFile]


def read_outcome(folders: Mapping[Stage, Path]) -> Outcome:
    """Of a pipeline that ran to `publish`."""
    publication = json.loads((folders[Stage.PUBLISH] / "publication.json").read_bytes())
    manifest = json.loads((folders[Stage.PACKAGE] / MANIFEST).read_bytes())
    listed = publication.pop("files")
    files = [PublishedFile(path, facts["size"], facts["sha256"]) for path, facts in listed.items()]
    return Outcome(publication, manifest, files)
