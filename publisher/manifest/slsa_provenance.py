"""`provenance.intoto.json`: how a checkpoint was made, in the words of SLSA, for programs that know nothing of LoRAM.

An in-toto Statement v1 (https://in-toto.io/Statement/v1) whose predicate is SLSA provenance v1
(https://slsa.dev/provenance/v1). It says nothing that the manifest leaves out but the digests of the text and which job
it was: no folders, and no repositories of text. Of equal inputs all but `runDetails` is equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from publisher.manifest.manifest import BaseModelRecord, Manifest

FILE_NAME = "provenance.intoto.json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
#: docs/verify.md says what they mean
BUILD_TYPE, BUILDER = "urn:loram-publisher:build:v1", "urn:loram-publisher:worker"


@dataclass(frozen=True)
class Run:
    """What one run adds. `corpora`: name → sha256 of text that was read; `invocation`: what its job is called."""

    corpora: Mapping[str, str] = field(default_factory=dict)
    invocation: str | None = None
    started_on: datetime | None = None


def write_provenance(folder: Path, manifest: Manifest, run: Run) -> None:
    """Of the checkpoint in `folder`; `manifest` names all its files that there are without this one."""
    text = json.dumps(statement(manifest, run), indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def statement(manifest: Manifest, run: Run) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [_descriptor(name, {"sha256": file.sha256}) for name, file in sorted(manifest.files.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(manifest),
                "internalParameters": {},
                "resolvedDependencies": [*_of_base(manifest.base), *_of_text(run.corpora)],
            },
            "runDetails": {
                "builder": _builder(manifest),
                "metadata": _known(
                    invocationId=run.invocation,
                    startedOn=_moment(run.started_on) if run.started_on else None,
                    finishedOn=_moment(manifest.created_at),
                ),
            },
        },
    }


def contradictions(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Where the provenance in `folder` is not that of the checkpoint of `manifest`, a clause each; older ones have
    none."""
    if FILE_NAME not in manifest.files:
        return
    try:
        stated = json.loads((folder / FILE_NAME).read_bytes())
        subjects = {str(subject["name"]): subject["digest"]["sha256"] for subject in stated["subject"]}
        definition, details = stated["predicate"]["buildDefinition"], stated["predicate"]["runDetails"]
        dependencies = {one.get("name"): one["digest"] for one in definition["resolvedDependencies"]}
        parameters = definition["externalParameters"]
        kinds = [stated["_type"], stated["predicateType"], definition["buildType"]]
        ran = [details["builder"], details["metadata"].get("finishedOn")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        yield f"{FILE_NAME} is no provenance ({error!r})"
        return
    if kinds != [STATEMENT, PREDICATE, BUILD_TYPE]:
        yield f"{FILE_NAME} is of another kind: {', '.join(map(str, kinds))}"
    files = {name: file.sha256 for name, file in manifest.files.items() if name != FILE_NAME}
    for name in sorted(files.keys() | subjects.keys()):
        if files.get(name) != subjects.get(name):
            yield f"{FILE_NAME} has {_of(subjects.get(name))} of {name}, the manifest {_of(files.get(name))}"
    if parameters != _parameters(manifest):
        yield f"{FILE_NAME} has another recipe or base model than the manifest"
    if ran != [_builder(manifest), _moment(manifest.created_at)]:
        yield f"{FILE_NAME} has another builder, other software or another time than the manifest"
    for one in _of_base(manifest.base):
        if dependencies.get(one["name"]) != one["digest"]:
            yield f"{FILE_NAME} has another digest of {one['name']} than the manifest, or none"


def _builder(manifest: Manifest) -> dict[str, Any]:
    return {"id": BUILDER, "version": dict(sorted(manifest.software.items()))}


def _parameters(manifest: Manifest) -> dict[str, Any]:
    base = manifest.base
    return {
        "baseModel": _known(name=base.repo_id, revision=base.revision, endpoint=base.endpoint),
        "recipe": manifest.recipe,
    }


def _of_base(base: BaseModelRecord) -> Iterator[dict[str, Any]]:
    """The repository at its commit, if it came from one, then its files; of a folder the files alone."""
    where = f"{base.endpoint}/{base.repo_id}" if base.endpoint else None
    if where is not None:
        yield _descriptor(base.repo_id, {"gitCommit": base.revision}, where)
    for name, file in sorted(base.files.items()):
        uri = f"{where}/resolve/{base.revision}/{name}" if where else None
        yield _descriptor(f"{base.repo_id}/{name}", {"sha256": file.sha256}, uri)


def _of_text(corpora: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """By the corpora's names in the recipe. The digest is over files and how they are read: docs/verify.md."""
    return (_descriptor(f"corpus {name}", {"sha256": digest}) for name, digest in sorted(corpora.items()))


def _descriptor(name: str, digest: Mapping[str, str], uri: str | None = None) -> dict[str, Any]:
    return _known(name=name, uri=uri, digest=dict(digest))


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _moment(at: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _of(digest: str | None) -> str:
    return "nothing" if digest is None else f"sha256 {digest}"
