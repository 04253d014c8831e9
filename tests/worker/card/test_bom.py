"""The bill of materials is CycloneDX by the official schema, and its numbers are the manifest's."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator

from publisher.manifest.manifest import Manifest
from tests.manifest.contents import content
from worker.card.bom import SPDX, BillSubject, bill

FILES = {name: {"size": 3, "sha256": digit * 64} for name, digit in (("config.json", "1"), ("model.safetensors", "2"))}
BASE = {"repo_id": "org/base", "revision": "c" * 40, "endpoint": "https://huggingface.co", "files": FILES}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
SUBJECT = BillSubject(
    manifest=Manifest.parse(content(base=BASE), "a test"),
    name="org/small",
    config=LLAMA,
    corpora=["novel", "prose"],
    licenses=["apache-2.0"],
)
#: of a folder without a public name, nothing measured, no licence known
BARE = replace(
    SUBJECT,
    manifest=Manifest.parse(content(evaluation=None, base=BASE | {"repo_id": "base", "endpoint": None}), "a test"),
    config={},
    corpora=(),
    licenses=(),
)
COMMUNITY = replace(
    SUBJECT, licenses=["other"], license_name="some-community", license_link="https://example.com/licence"
)


def refused(found: dict[str, Any]) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))


@pytest.mark.parametrize("subject", [SUBJECT, BARE, COMMUNITY], ids=["whole", "bare", "licence of one's own"])
def test_it_is_valid_by_the_official_schema(subject: BillSubject) -> None:
    assert refused(bill(subject)) is None


def test_the_schema_refuses_what_is_wrong() -> None:
    found = bill(SUBJECT)
    found["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "pruned"
    assert refused(found) is not None


def test_component_base_and_files_are_named_with_their_digests() -> None:
    component = bill(SUBJECT)["metadata"]["component"]
    assert (component["type"], component["name"]) == ("machine-learning-model", "org/small")
    (file,) = component["components"]
    assert (file["name"], file["hashes"]) == ("model.safetensors", [{"alg": "SHA-256", "content": "0" * 64}])
    (base,) = component["pedigree"]["ancestors"]
    assert base["purl"] == f"pkg:huggingface/org/base@{'c' * 40}"
    assert [each["hashes"][0]["content"] for each in base["components"]] == ["1" * 64, "2" * 64]
    parameters = component["modelCard"]["modelParameters"]
    assert (parameters["architectureFamily"], parameters["modelArchitecture"]) == ("llama", "LlamaForCausalLM")
    assert [each["name"] for each in parameters["datasets"]] == ["novel", "prose"]


def test_base_without_a_hub_has_no_address() -> None:
    (base,) = bill(BARE)["metadata"]["component"]["pedigree"]["ancestors"]
    assert base.keys() == {"type", "bom-ref", "name", "version", "components"}


def test_measurements_are_the_certificate_s() -> None:
    metrics = bill(SUBJECT)["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    perplexities = {metric["slice"]: metric["value"] for metric in metrics if metric["type"] == "perplexity"}
    assert perplexities == {
        "novel, base": "76.62",
        "novel, pruned": "419.1",
        "novel, aligned": "131.7",
        "novel, published": "140.2",
        "novel, base with recovered adapter": "64",
    }
    (gain,) = [metric for metric in metrics if metric["type"] != "perplexity"]
    low, high = (float(gain["confidenceInterval"][name]) for name in ("lowerBound", "upperBound"))
    assert (low + high) / 2 == pytest.approx(float(gain["value"]), rel=1e-4)
    assert (high - low) / 4 == pytest.approx(0.02, rel=1e-3)
    assert "quantitativeAnalysis" not in bill(BARE)["metadata"]["component"]["modelCard"]


def test_licences_are_those_of_spdx_where_they_are_the_same() -> None:
    assert bill(SUBJECT)["metadata"]["component"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert bill(COMMUNITY)["metadata"]["component"]["licenses"] == [
        {"license": {"name": "some-community", "url": "https://example.com/licence"}}
    ]
    relative = replace(COMMUNITY, licenses=["llama3.1"], license_name=None, license_link="LICENSE")
    assert bill(relative)["metadata"]["component"]["licenses"] == [{"license": {"name": "llama3.1"}}]
    assert [name for name in SPDX.values() if not is_supported_id(name)] == []


def test_the_serial_number_is_the_files() -> None:
    assert bill(SUBJECT)["serialNumber"] == bill(replace(SUBJECT, name="org/other"))["serialNumber"]
    other = SUBJECT.manifest.model_copy(update={"files": {}})
    assert bill(replace(SUBJECT, manifest=other))["serialNumber"] != bill(SUBJECT)["serialNumber"]
    uuid.UUID(bill(SUBJECT)["serialNumber"].removeprefix("urn:uuid:"))
