"""package: the checkpoint folder as it will be published (DESIGN 5.3), with its plots, card and manifest.

Model files are hard links where the disk allows it, so that packaging costs no second copy of the weights.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from publisher.architecture.geometry import LayerWidths
from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.base_model.files import belongs_to_model
from publisher.checkpoint import signature
from publisher.checkpoint.framing import Framing
from publisher.checkpoint.integrity import CONFIG
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.weight_masks import open_masks
from publisher.errors import RequestFault
from publisher.files.json_object import read_object
from publisher.files.reading import BASE, reading
from publisher.manifest import manifest, slsa_provenance
from publisher.manifest.evaluation import EvaluationReport
from publisher.manifest.manifest import (
    BaseModelRecord,
    Counts,
    FileRecord,
    Manifest,
    Sizes,
    TextRecord,
    Widths,
)
from publisher.manifest.reports import AlignmentReport, FetchedBase, read_document_losses, read_probe_losses
from publisher.manifest.verdict import Verdict
from publisher.recipe.stages import Stage
from publisher.weights.index import INDEX_FILE
from worker.card import bom, card
from worker.card.plots import Measured, draw_plots
from worker.card.pruning import calibration_corpora
from worker.card.usage import HUGGING_FACE
from worker.context import StageContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.inputs import PackageInputs
from worker.stages.licence import documents_digest, read_licence
from worker.stages.portable_tokenizer import make_portable
from worker.stages.spec import Digests, StageSpec
from worker.storage.folder import RECORD
from worker.storage.store import stage_digest
from worker.streaming.weights import read_geometry
from worker.text.tokenizer import load_tokenizer

VERSION = 10
_SOFTWARE = ("loram-publisher", "torch", "transformers", "peft", "bitsandbytes", "safetensors")
#: Of the base model's files, those that are the model and so come from the quantized folder, or are made anew here.
_REPLACED = (INDEX_FILE, CONFIG, card.FILE_NAME)


def digest(request: BuildRequest, digests: Digests) -> str:
    """The card names base and target, and the signature is one key's: they count. Which job it is does not."""
    return stage_digest(
        Stage.PACKAGE,
        VERSION,
        {
            "inputs": [digests.get(stage) for stage in PACKAGE.needs],
            "recipe": request.recipe.digest,
            "base": [request.base.public_name, request.base.revision, request.base.endpoint],
            "target": [request.publish.endpoint, request.publish.repo_id] if request.publish else None,
            "documents": documents_digest(request.base.path),
            "signed_by": request.signing_key.id if request.signing_key else None,
        },
    )


def run(request: BuildRequest, inputs: PackageInputs, output: Path, context: StageContext) -> None:
    """Writes the checkpoint into `output`, the manifest last."""
    _place_files(inputs, output, context)
    evaluation = _evaluation(inputs.evaluation)
    alignment = AlignmentReport.read(inputs.alignment) if inputs.alignment else None
    described = _describe(request, inputs, output, alignment, evaluation)
    measured = Measured(
        kept=open_masks(inputs.masks).kept_shares(described),
        alignment_loss=alignment.loss if alignment else (),
        gradient_cosine=alignment.gradient_cosine if alignment else (),
        evaluation=evaluation,
        probe_losses=read_probe_losses(inputs.probe_losses),
        document_losses=read_document_losses(inputs.document_losses),
    )
    plots = draw_plots(output, measured)
    _warn_of_certificate(described, context)
    licence = read_licence(inputs.base)
    if licence.complaint:
        context.log(f"Warning: the base model's card cannot be read, so its licence is not named: {licence.complaint}.")
    subject = card.CardSubject(
        manifest=described,
        repo_id=request.publish.repo_id if request.publish else "path/to/checkpoint",
        endpoint=request.publish.endpoint if request.publish else None,
        license=licence.name,
        license_name=licence.custom,
        license_link=licence.link,
        legal_texts=licence.texts,
        plots=plots,
        signed_by=request.signing_key.id if request.signing_key else None,
    )
    (output / card.FILE_NAME).write_text(card.model_card(subject), encoding="utf-8")
    _attest(request, described.model_copy(update={"files": _records(output, context)}), subject, output)


def _attest(request: BuildRequest, described: Manifest, subject: card.CardSubject, output: Path) -> None:
    """What programs of others read, each naming the files before it: bill of materials, provenance, manifest; and the
    signature over all of them. The files of the model are not read again: `described` knows their digests."""
    corpora = _digests_of_text(request, described)
    licences = subject.license if isinstance(subject.license, list) else [subject.license] if subject.license else []
    bom.write_bill(
        output,
        bom.BillSubject(
            manifest=described,
            name=subject.repo_id if request.publish else described.base.repo_id,
            config=read_object(output / CONFIG),
            corpora=sorted(corpora),
            licenses=licences,
            license_name=subject.license_name,
            license_link=subject.license_link,
        ),
    )
    described = _with_file(described, output, bom.FILE_NAME)
    job = request.invocation
    run = slsa_provenance.Run(corpora, job.id, job.started_on) if job else slsa_provenance.Run(corpora)
    slsa_provenance.write_provenance(output, described, run)
    described = _with_file(described, output, slsa_provenance.FILE_NAME)
    described.write(output)
    if request.signing_key:
        files = {**described.files, manifest.FILE_NAME: manifest.record(output / manifest.FILE_NAME)}
        signature.sign(output, subject.repo_id, files, request.signing_key)


def _with_file(described: Manifest, folder: Path, name: str) -> Manifest:
    return described.model_copy(update={"files": {**described.files, name: manifest.record(folder / name)}})


def _digests_of_text(request: BuildRequest, described: Manifest) -> dict[str, str]:
    """Corpus → sha256, of those that were read: of files as they were when they were registered."""
    recipe, names = request.recipe, set(calibration_corpora(described))
    names |= {corpus.name for corpus in recipe.alignment.corpora} if recipe.alignment else set()
    names |= set(recipe.evaluation.corpora) if recipe.evaluation else set()
    known = {name: request.corpora[name].known_digest for name in sorted(names & request.corpora.keys())}
    return {name: digest for name, digest in known.items() if digest}


def _warn_of_certificate(described: Manifest, context: StageContext) -> None:
    certificate = described.evaluation.certificate if described.evaluation else None
    if certificate is not None and certificate.verdict is not Verdict.PASSED:
        context.log(f"Warning: the certificate's verdict is {certificate.verdict.words}: {certificate.reason}.")


def _place_files(inputs: PackageInputs, output: Path, context: StageContext) -> None:
    """Tokenizer, chat template, licence texts of the base model; then the quantized model over them; the masks."""
    of_base = {path.relative_to(inputs.base).as_posix(): path for path in sorted(inputs.base.rglob("*"))}
    sources = {name: path for name, path in of_base.items() if belongs_to_model(name) and name not in _REPLACED}
    sources |= {path.name: path for path in sorted(inputs.quantized.iterdir())}
    by_name = {name: path for name, path in sources.items() if path.is_file()} | {MASKS: inputs.masks}
    for done, (name, source) in enumerate(by_name.items(), 1):
        (output / name).parent.mkdir(exist_ok=True)
        _link_or_copy(source, output / name)
        context.progress(done, len(by_name), "files")
    make_portable(output)


def _link_or_copy(source: Path, target: Path) -> None:
    """A file that belongs to the base model's owner, who may write to it and open it to others, is copied."""
    if source.is_symlink():
        with reading(BASE, source):
            shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
            raise
        shutil.copyfile(source, target)


def _describe(
    request: BuildRequest,
    inputs: PackageInputs,
    output: Path,
    alignment: AlignmentReport | None,
    evaluation: EvaluationReport | None,
) -> Manifest:
    """The manifest without the files' digests."""
    geometry = read_geometry(inputs.base)
    masks = open_masks(inputs.masks)
    widths, parameters = masks.left(geometry)
    base_files = FetchedBase.read(inputs.base_json).files
    return Manifest(
        base=_base_record(request.base, base_files),
        recipe=request.recipe.model_dump(mode="json"),
        recipe_digest=request.recipe.digest,
        parameters=Counts(base=geometry.parameters(), pruned=parameters),
        bytes=Sizes(base=_weight_bytes(base_files), checkpoint=_checkpoint_bytes(output, masks)),
        base_widths=[_as_record(width) for width in geometry.full_widths],
        widths=[_as_record(width) for width in widths],
        alignment=alignment.summary() if alignment else None,
        text=_text_record(inputs.base),
        evaluation=evaluation,
        software={name: version(name) for name in _SOFTWARE},
        stage_seconds=dict(inputs.stage_seconds),
        created_at=datetime.now(UTC),
        files={},
    )


def _base_record(base: BaseModelSource, files: dict[str, FileRecord]) -> BaseModelRecord:
    endpoint = None if base.path is not None else base.endpoint or HUGGING_FACE
    return BaseModelRecord(repo_id=base.public_name, revision=base.revision, endpoint=endpoint, files=files)


def _text_record(base: Path) -> TextRecord | None:
    try:
        tokenizer = load_tokenizer(base)
        framing = Framing.of(tokenizer)
    except RequestFault:  # nothing read text: no tokenizer, or none that could tell documents apart
        return None
    before, close = (tokenizer.convert_ids_to_tokens(list(ids)) for ids in (framing.before, framing.close))
    return TextRecord(before=before, close=close)


def _as_record(width: LayerWidths) -> Widths:
    return Widths.model_validate(asdict(width))


def _weight_bytes(files: dict[str, FileRecord]) -> int:
    return sum(facts.size for name, facts in files.items() if name.endswith(".safetensors"))


def _checkpoint_bytes(folder: Path, masks: PruningMasks) -> int:
    """Of the weights, and of masks of single weights, which are as large as to matter."""
    files = [*folder.glob("model*.safetensors"), *([folder / MASKS] if masks.count_as_weights else [])]
    return sum(path.stat().st_size for path in files)


def _evaluation(path: Path | None) -> EvaluationReport | None:
    return EvaluationReport.model_validate_json(path.read_bytes()) if path else None


def _records(folder: Path, context: StageContext) -> dict[str, FileRecord]:
    """Size and sha256 of all that will be published, except the manifest."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    total, done = sum((folder / name).stat().st_size for name in names), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        context.progress(done, total, "bytes hashed")

    return {name: manifest.record(folder / name, advance) for name in names if name not in (manifest.FILE_NAME, RECORD)}


PACKAGE = StageSpec(
    name=Stage.PACKAGE,
    needs=(Stage.FETCH, Stage.QUANTIZE, Stage.PRUNE, Stage.ALIGN, Stage.EVALUATE),
    inputs=PackageInputs.of,
    digest=digest,
    run=run,
)
