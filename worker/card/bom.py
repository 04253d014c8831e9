"""`bom.cdx.json`: the checkpoint as a bill of materials for models, CycloneDX 1.6 (ECMA-424), for those who keep an
inventory: what it is, under which licence, made from what, trained on which text, how good.

Written as JSON: cyclonedx-python-lib has no `modelCard`. Tests validate it against the schema that the library ships.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from publisher import __version__
from publisher.manifest.evaluation import Certificate, EvaluationReport
from publisher.manifest.manifest import BaseModelRecord, FileRecord, Manifest
from worker.card.usage import HUGGING_FACE

FILE_NAME = "bom.cdx.json"
_TOOL = "loram-publisher"
#: the Hub's names of licences → SPDX's, where they mean one and the same
SPDX = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause",
    "cc0-1.0": "CC0-1.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0", "mpl-2.0": "MPL-2.0", "isc": "ISC", "unlicense": "Unlicense",
    "artistic-2.0": "Artistic-2.0", "ecl-2.0": "ECL-2.0", "zlib": "Zlib", "postgresql": "PostgreSQL", "wtfpl": "WTFPL",
}  # fmt: skip


@dataclass(frozen=True)
class BillSubject:
    """What the bill says beyond the manifest, which names all files that there are without it.

    `name`: the repository that the checkpoint goes to; `config`: its config.json; `corpora`: what was read; `licenses`:
    the base model's by the Hub's names, with `license_name` and `license_link` where a card has them.
    """

    manifest: Manifest
    name: str
    config: Mapping[str, Any]
    corpora: Sequence[str] = ()
    licenses: Sequence[str] = ()
    license_name: str | None = None
    license_link: str | None = None


def write_bill(folder: Path, subject: BillSubject) -> None:
    text = json.dumps(bill(subject), indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def bill(subject: BillSubject) -> dict[str, Any]:
    """The same of the same checkpoint: its serial number follows from its files."""
    manifest = subject.manifest
    files = "\n".join(f"{file.sha256}  {name}" for name, file in sorted(manifest.files.items()))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, files)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": _TOOL, "version": __version__}]},
            "component": _checkpoint(subject),
        },
    }


def _checkpoint(subject: BillSubject) -> dict[str, Any]:
    manifest = subject.manifest
    return _known(
        type="machine-learning-model",
        **{"bom-ref": "checkpoint"},
        name=subject.name,
        version=manifest.recipe_digest[:12],
        description=f"Pruned copy of {manifest.base.repo_id}, to train adapters on that are recovered onto it.",
        licenses=_licences(subject),
        pedigree={"ancestors": [_base(manifest.base)]},
        components=_files(manifest.files, "checkpoint"),
        modelCard=_known(
            modelParameters=_parameters(subject),
            quantitativeAnalysis=_analysis(manifest.evaluation),
            considerations={
                "technicalLimitations": [
                    "Not meant to be used as a model itself: what is trained on it is recovered to the base model."
                ]
            },
        ),
        properties=[{"name": f"loram:{name}", "value": str(value)} for name, value in _properties(manifest)],
    )


def _licences(subject: BillSubject) -> list[dict[str, Any]]:
    """The base model's, which go for what is made of it."""
    link = subject.license_link if (subject.license_link or "").startswith(("https://", "http://")) else None
    names = [name for name in subject.licenses if name != "other" or not subject.license_name]
    own = [_known(name=subject.license_name, url=link)] if subject.license_name else []
    found = [{"id": SPDX[name]} if name in SPDX else {"name": name} for name in names]
    return [{"license": licence} for licence in [*found, *own]]


def _base(base: BaseModelRecord) -> dict[str, Any]:
    hub = base.endpoint == HUGGING_FACE
    where = f"{base.endpoint}/{base.repo_id}" if base.endpoint else None
    return _known(
        type="machine-learning-model",
        **{"bom-ref": "base"},
        name=base.repo_id,
        version=base.revision,
        purl=f"pkg:huggingface/{quote(base.repo_id)}@{base.revision}" if hub else None,
        components=_files(base.files, "base"),
        externalReferences=[{"type": "distribution", "url": where}] if where else None,
    )


def _files(files: Mapping[str, FileRecord], of: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "bom-ref": f"{of}/{name}",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        }
        for name, file in sorted(files.items())
    ]


def _parameters(subject: BillSubject) -> dict[str, Any]:
    architectures = subject.config.get("architectures")
    return _known(
        approach={"type": "self-supervised"},
        task="text-generation",
        architectureFamily=subject.config.get("model_type"),
        modelArchitecture=architectures[0] if isinstance(architectures, list) and architectures else None,
        datasets=[{"type": "dataset", "name": name} for name in subject.corpora],
        inputs=[{"format": "text"}],
        outputs=[{"format": "text"}],
    )


def _analysis(report: EvaluationReport | None) -> dict[str, Any] | None:
    metrics = [] if report is None else [*_perplexities(report), *_of_certificate(report.certificate)]
    return {"performanceMetrics": metrics} if metrics else None


def _perplexities(report: EvaluationReport) -> Iterator[dict[str, Any]]:
    for corpus, found in sorted(report.perplexity.items()):
        for form, value in found.model_dump(include={"base", "pruned", "aligned", "quantized"}).items():
            if value is not None:
                yield _metric("perplexity", value, f"{corpus}, {'published' if form == 'quantized' else form}")


def _of_certificate(certificate: Certificate | None) -> Iterator[dict[str, Any]]:
    """The base model with the recovered probe, and by how much that lowers its loss: mean ± two standard errors."""
    if certificate is None:
        return
    for corpus, value in sorted(certificate.recovered_perplexity.items()):
        yield _metric("perplexity", value, f"{corpus}, base with recovered adapter")
    for corpus, value in sorted((certificate.direct_perplexity or {}).items()):
        yield _metric("perplexity", value, f"{corpus}, base with adapter trained on it")
    for corpus, difference in sorted(certificate.differences.items()):
        metric = _metric("loss reduction, nats per token", difference.mean, f"{corpus}, recovered adapter")
        if (error := difference.standard_error) is not None:
            bounds = {"lowerBound": difference.mean - 2 * error, "upperBound": difference.mean + 2 * error}
            metric["confidenceInterval"] = {name: f"{value:.6g}" for name, value in bounds.items()}
        yield metric


def _metric(kind: str, value: float, piece: str) -> dict[str, Any]:
    return {"type": kind, "value": f"{value:.6g}", "slice": piece}


def _properties(manifest: Manifest) -> Iterable[tuple[str, object]]:
    pruning = manifest.recipe.get("pruning") or {}
    yield from ((f"pruning.{name}", pruning[name]) for name in ("method", "criterion", "ratio") if name in pruning)
    yield "recipe_digest", manifest.recipe_digest
    yield from ((f"parameters.{name}", value) for name, value in manifest.parameters.model_dump().items())
    yield from ((f"bytes.{name}", value) for name, value in manifest.bytes.model_dump().items())
    yield "stored_in_4_bits", str(manifest.is_quantized).lower()
    if manifest.evaluation and manifest.evaluation.certificate:
        yield "certificate.verdict", manifest.evaluation.certificate.verdict.value
        yield "certificate.strength", f"{manifest.strength:g}"


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != []}
