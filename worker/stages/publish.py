"""publish: the checkpoint as one commit in a Hub repository, read back and compared byte by byte.

What is about to be sent is written down first (Intents): from there on the Hub alone knows how the job ends, and
whoever claims the job of a worker that died in between asks it (worker.jobs.settlement). Doing it again is free of
effect: if the repository's head already is this checkpoint, it is the publication.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from publisher.checkpoint.signature import FILE_NAME as SIGNATURE
from publisher.errors import CredentialFault, InfrastructureFault, RequestFault
from publisher.hub_client.patience import is_away
from publisher.hub_client.repo_id import check_repo_id
from publisher.jobs.publishing import Intent
from publisher.manifest.manifest import FILE_NAME as MANIFEST
from publisher.manifest.manifest import FileRecord, Manifest, files_named_in, record
from publisher.manifest.reports import PublicationReport
from publisher.manifest.verdict import MORE_DOCUMENTS, Verdict, withholds
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.request import BuildRequest, PublishTarget
from worker.stages.inputs import PublishInputs
from worker.stages.publication import asked_of, differing_bytes, hub_api, refuse_otherwise, standing, talking_to
from worker.stages.rights import refuse_public
from worker.stages.spec import Digests, StageSpec
from worker.storage.folder import write_json
from worker.storage.store import stage_digest
from worker.transfer.uploads import CountedFile, received, sending

VERSION = 1
_TRIES = 5
_READ_TO_SEND = 2  # each byte is read once to be hashed, once to be sent
_WAIVED = "or publish it as it is with require_certificate {}: its card opens with this."
_TRAIN_MORE = "Train the probe for longer (probe_budget.steps), align for longer or prune less; "
#: what changes each verdict that can withhold a checkpoint
_WAYS_OUT = {
    Verdict.INCONCLUSIVE: MORE_DOCUMENTS,
    Verdict.NOT_SIGNIFICANT: "Measure more text (evaluation.tokens, more held-out documents), train the probe for "
    "longer (probe_budget.steps), align for longer or prune less; " + _WAIVED.format('"unless_failed"'),
    Verdict.NEGLIGIBLE: _TRAIN_MORE + _WAIVED.format('"unless_failed"'),
    Verdict.FAILED: _TRAIN_MORE + _WAIVED.format("false"),
    Verdict.NOT_STATED: "Make the variant again; " + _WAIVED.format('"unless_failed"'),
}
_CLIENT = "loram-publisher"  # by which the embedded Hub knows that Xet is switched off
_MOVED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT)


def digest(request: BuildRequest, digests: Digests) -> str:
    target = _target(request)
    return stage_digest(
        Stage.PUBLISH,
        VERSION,
        {"package": digests[Stage.PACKAGE], "endpoint": target.endpoint, "repo_id": target.repo_id},
    )


def run(request: BuildRequest, inputs: PublishInputs, output: Path, context: StageContext) -> None:
    """Writes `publication.json`: endpoint, repo_id, commit, url, files.

    Raises RequestFault if the recipe requires a certificate that the checkpoint does not earn, if the Hub refuses the
    name, or if the repository is public where private was asked for; CredentialFault if it refuses the token, whatever
    for: everything is computed; HubUnavailable if it does not answer; InfrastructureFault if it gives back something
    else than was sent.
    """
    _refuse_xet()
    target = _target(request)
    _refuse_uncertified(request, Manifest.read(inputs.checkpoint))
    check_repo_id(target.repo_id)
    api = hub_api(target)
    with talking_to(target, replace(asked_of(target), forbidden=CredentialFault, missing=CredentialFault)):
        publishing = Publishing.of(api, target, inputs.checkpoint, context)
        if not api.repo_exists(target.repo_id):  # create_repo alone fails on one where the token may only write
            api.create_repo(target.repo_id, private=target.private, exist_ok=True)
        commit = publishing.make()
        publishing.compare(commit)
    context.log(f"The checkpoint is published in {target.repo_id} as {commit}, and was read back.")
    url = f"{target.endpoint}/{target.repo_id}"
    report = PublicationReport(
        endpoint=target.endpoint, repo_id=target.repo_id, commit=commit, url=url, files=dict(publishing.files)
    )
    write_json(output / "publication.json", report.model_dump(mode="json"))


@dataclass
class Publishing:
    """A checkpoint on its way into a repository. `files`: what its manifest names, the manifest, and a signature."""

    api: HfApi
    target: PublishTarget
    checkpoint: Path
    context: StageContext
    files: Mapping[str, FileRecord]
    read_bytes: int = field(default=0, init=False)
    received_bytes: int = field(default=0, init=False)

    @classmethod
    def of(cls, api: HfApi, target: PublishTarget, checkpoint: Path, context: StageContext) -> Publishing:
        further = [name for name in (MANIFEST, SIGNATURE) if (checkpoint / name).is_file()]
        files = {**Manifest.read(checkpoint).files, **{name: record(checkpoint / name) for name in further}}
        return cls(api, target, checkpoint, context, files)

    def make(self) -> str:
        """The commit whose files are the checkpoint's: the head if it is one already, or a new one."""
        for _ in range(_TRIES):
            head = self._info()
            refuse_public(self.target, head)
            stale = self._stale(head)
            if not stale and not self._differences(head):
                self.context.log(f"{self.target.repo_id} already holds this checkpoint at {head.sha}.")
                return str(head.sha)
            commit = self._commit(head, stale)
            if commit is not None:
                return commit
            self.context.log(f"{self.target.repo_id} has moved on from {head.sha}; reading it again.")
        raise InfrastructureFault(
            f"{self.target.repo_id} was changed by others during each of {_TRIES} attempts to publish.",
            way_out="Stop what else commits to it, and try again.",
        )

    def compare(self, commit: str) -> None:
        """Read the published revision back: what the Hub lists, and every byte of every file."""
        repo_id = self.target.repo_id
        problems = self._differences(self._info(commit))
        problems += differing_bytes(self.api, repo_id, commit, self.files, self._receive)
        refuse_otherwise(repo_id, commit, problems)

    def _commit(self, head: ModelInfo, stale: list[str]) -> str | None:
        """One commit on top of `head`; None if the repository has moved on from it."""
        with ExitStack() as opened:
            additions = []
            for name in self.files:
                file = opened.enter_context(CountedFile(self.checkpoint / name, self._read))
                additions.append(CommitOperationAdd(name, file))
                with sending(name):
                    self.api.preupload_lfs_files(self.target.repo_id, additions[-1:], num_threads=1, free_memory=False)
            self.context.check()
            intent = Intent(
                endpoint=self.target.endpoint, repo_id=self.target.repo_id, parent=str(head.sha), files=dict(self.files)
            )
            self.target.intents.intend(intent)
            try:
                return self._send([*additions, *map(CommitOperationDelete, stale)], intent)
            except HfHubHTTPError as error:
                return self._refused(error, intent)

    def _send(self, operations: list[CommitOperationAdd | CommitOperationDelete], intent: Intent) -> str:
        done = self.api.create_commit(
            intent.repo_id,
            operations,
            commit_message="Publish LoRAM checkpoint",
            commit_description=intent.mark,
            parent_commit=intent.parent,
        )
        return str(done.oid)

    def _refused(self, error: HfHubHTTPError, intent: Intent) -> str | None:
        """The commit after all; None if the repository has moved on. Raises `error` for every other refusal.

        An answer that is no refusal says nothing of the commit, so that the intent stands.
        """
        status = error.response.status_code
        if is_away(status) and status != HTTPStatus.TOO_MANY_REQUESTS:
            raise error
        moved = status in _MOVED
        # it may have been sent twice on its way, and what stands in the way of the second be the first
        commit = standing(self.api, intent).commit if moved else None
        if commit is None:
            self.target.intents.withdraw()
            if not moved:
                raise error
        return commit

    def _info(self, revision: str | None = None) -> ModelInfo:
        return self.api.model_info(self.target.repo_id, revision=revision, files_metadata=True)

    def _differences(self, info: ModelInfo) -> list[str]:
        """Files that the Hub lists otherwise than the checkpoint has them, one phrase each."""
        listed = {sibling.rfilename: sibling for sibling in info.siblings or []}
        missing = [f"{name} is missing" for name in self.files if name not in listed]
        return missing + [
            f"{name} is listed with another content"
            for name, facts in self.files.items()
            if name in listed and not _is_file(listed[name], self.checkpoint / name, facts)
        ]

    def _stale(self, head: ModelInfo) -> list[str]:
        """Files of the checkpoint that the head holds, weights that a loader could take for ours, another signature."""
        present = {sibling.rfilename for sibling in head.siblings or []}
        weights = {name for name in present if name.startswith("model") and "safetensors" in name}
        listed = self._listed(head) if MANIFEST in present else set()
        return sorted((weights | listed | {SIGNATURE}) & present - self.files.keys())

    def _listed(self, head: ModelInfo) -> set[str]:
        """What the head's manifest names; nothing if it is not a manifest at all."""
        return files_named_in(b"".join(received(self.api, self.target.repo_id, MANIFEST, str(head.sha))))

    def _read(self, count: int) -> None:
        self.read_bytes += count
        self._tell(self.read_bytes / _READ_TO_SEND, "bytes sent")

    def _receive(self, count: int) -> None:
        self.received_bytes += count
        self._tell(self.received_bytes, "bytes read back")

    def _tell(self, done: float, unit: str) -> None:
        total = sum(facts.size for facts in self.files.values())
        self.context.progress(min(done, total), total, unit)


def _target(request: BuildRequest) -> PublishTarget:
    assert request.publish is not None, "publish runs only for a request that says where to"
    return request.publish


def _refuse_uncertified(request: BuildRequest, manifest: Manifest) -> None:
    """A checkpoint that has not what its recipe asks for; one without a probe says in its card that it has none."""
    recipe, report = request.recipe.evaluation, manifest.evaluation
    certificate = report.certificate if report else None
    if recipe is None or certificate is None or not withholds(recipe.require_certificate, certificate.verdict):
        return
    raise RequestFault(
        f"the certificate's verdict is {certificate.verdict.words}: {certificate.reason}. Perplexity: "
        f"{certificate.base:.4g}, and {certificate.recovered:.4g} with it. Nothing was published.",
        field="recipe.evaluation.require_certificate",
        way_out=f"{_WAYS_OUT[certificate.verdict]} Finished stages are kept: a variant that differs in "
        "evaluation alone starts at evaluate, one that differs in require_certificate alone at package.",
    )


def _refuse_xet() -> None:
    if not constants.HF_HUB_DISABLE_XET:
        raise InfrastructureFault(
            "huggingface_hub was imported without HF_HUB_DISABLE_XET=1 and would upload through Xet, which only "
            "huggingface.co has.",
            way_out="Set HF_HUB_DISABLE_XET=1 in the worker's environment.",
        )


def _is_file(sibling: RepoSibling, path: Path, facts: FileRecord) -> bool:
    """Large files are listed by sha256, small ones by git's own digest of the content."""
    if sibling.lfs is not None:
        return bool(sibling.lfs.sha256 == facts.sha256)
    return sibling.size == facts.size and sibling.blob_id == _git_blob_id(path)


def _git_blob_id(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


PUBLISH = StageSpec(
    name=Stage.PUBLISH,
    needs=(Stage.PACKAGE,),
    inputs=PublishInputs.of,
    digest=digest,
    run=run,
    # what a Hub holds can change: publishing again commits nothing if it still holds this checkpoint
    remade=True,
)
