"""What a finished build leaves in the database, read from the folders of its last stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publisher.jobs.transitions import PublishedFile
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication, PublicationReport
from publisher.recipe.stages import Stage


@dataclass(frozen=True)
class Outcome:
    publication: Publication
    manifest: Manifest
    files: list[PublishedFile]


def read_outcome(folders: Mapping[Stage, Path]) -> Outcome:
    """Of a pipeline that ran to `publish`."""
    report = PublicationReport.read(folders[Stage.PUBLISH] / "publication.json")
    files = [PublishedFile(path, facts.size, facts.sha256) for path, facts in report.files.items()]
    return Outcome(report.publication, Manifest.read(folders[Stage.PACKAGE]), files)
