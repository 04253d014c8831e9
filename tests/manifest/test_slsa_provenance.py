"""The provenance is in-toto's and SLSA's, says what the manifest says, and no more than that of where things lie."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from in_toto_attestation.v1.statement import Statement

from publisher.manifest.manifest import BaseModelRecord, FileRecord, Manifest
from publisher.manifest.slsa_provenance import FILE_NAME, PREDICATE, Run, contradictions, statement, write_provenance
from tests.manifest.contents import content

DIGEST = "a" * 64


@pytest.fixture
def manifest() -> Manifest:
    return Manifest.parse(content(), "a test")


def test_its_form_is_that_of_in_toto(manifest: Manifest) -> None:
    """By in-toto's own library."""
    found = statement(manifest, Run())
    Statement.copy_from_pb(_parsed(found)).validate()
    assert found["predicateType"] == PREDICATE
    assert {subject["name"]: subject["digest"]["sha256"] for subject in found["subject"]} == {
        name: file.sha256 for name, file in manifest.files.items()
    }


def test_base_model_of_a_hub_is_named_by_commit_and_file_by_file(manifest: Manifest) -> None:
    base = BaseModelRecord(
        repo_id="org/base",
        revision="c" * 40,
        endpoint="https://huggingface.co",
        files={"model.safetensors": FileRecord(size=1, sha256=DIGEST)},
    )
    definition = statement(manifest.model_copy(update={"base": base}), Run({"prose": "b" * 64}))["predicate"]
    assert definition["buildDefinition"]["resolvedDependencies"] == [
        {"name": "org/base", "uri": "https://huggingface.co/org/base", "digest": {"gitCommit": "c" * 40}},
        {
            "name": "org/base/model.safetensors",
            "uri": f"https://huggingface.co/org/base/resolve/{'c' * 40}/model.safetensors",
            "digest": {"sha256": DIGEST},
        },
        {"name": "corpus prose", "digest": {"sha256": "b" * 64}},
    ]


def test_of_equal_inputs_only_the_run_differs(manifest: Manifest) -> None:
    began = datetime(2026, 11, 1, 12, tzinfo=UTC)
    one, other = (
        statement(manifest, Run()),
        statement(manifest.model_copy(update={"created_at": began}), Run(invocation="job_1", started_on=began)),
    )
    assert one["predicate"]["buildDefinition"] == other["predicate"]["buildDefinition"]
    assert one["subject"] == other["subject"]
    assert other["predicate"]["runDetails"]["metadata"] == {
        "invocationId": "job_1",
        "startedOn": "2026-11-01T12:00:00Z",
        "finishedOn": "2026-11-01T12:00:00Z",
    }


def written(folder: Path, manifest: Manifest) -> Manifest:
    write_provenance(folder, manifest, Run())
    return manifest.model_copy(update={"files": {**manifest.files, FILE_NAME: FileRecord(size=1, sha256=DIGEST)}})


def test_what_it_says_otherwise_than_the_manifest_is_named(manifest: Manifest, tmp_path: Path) -> None:
    whole = written(tmp_path, manifest)
    assert list(contradictions(tmp_path, whole)) == []
    name = next(iter(manifest.files))
    files = {**whole.files, name: FileRecord(size=1, sha256=DIGEST), "more.txt": FileRecord(size=1, sha256=DIGEST)}
    problems = list(contradictions(tmp_path, whole.model_copy(update={"files": files})))
    assert any(f"of {name}, the manifest sha256 {DIGEST}" in problem for problem in problems)
    assert f"{FILE_NAME} has nothing of more.txt, the manifest sha256 {DIGEST}" in problems
    recipe = whole.model_copy(update={"recipe": {**whole.recipe, "seed": 7}})
    assert list(contradictions(tmp_path, recipe)) == [f"{FILE_NAME} has another recipe or base model than the manifest"]
    base = whole.base.model_copy(update={"files": {"config.json": FileRecord(size=1, sha256=DIGEST)}})
    other = list(contradictions(tmp_path, whole.model_copy(update={"base": base})))
    assert other == [f"{FILE_NAME} has another digest of org/base/config.json than the manifest, or none"]


@pytest.mark.parametrize("text", ["", "[]", '{"subject": [{}]}', "[" * 100_000])
def test_what_is_no_provenance_is_one_clause(manifest: Manifest, tmp_path: Path, text: str) -> None:
    whole = written(tmp_path, manifest)
    (tmp_path / FILE_NAME).write_text(text)
    (problem,) = contradictions(tmp_path, whole)
    assert problem.startswith(f"{FILE_NAME} is no provenance")


def _parsed(found: dict[str, object]) -> object:
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2

    return Parse(json.dumps(found), statement_pb2.Statement())
