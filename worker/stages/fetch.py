"""fetch: the base model's files in one place, every one with its sha256.

A Hub repository is downloaded at its pinned commit; of a local folder there are only links. Small files that
transformers could not read are written anew (worker.stages.base_folder). Writes `base/` and `base.json`: the files of
the model as they were fetched, and as they are read where that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from publisher.base_model.facts import BaseModelFacts, inspect_folder, inspect_repository
from publisher.base_model.files import is_document
from publisher.errors import InfrastructureFault, RequestFault, UnsupportedModel
from publisher.files.reading import BASE, reading
from publisher.manifest.manifest import FileRecord
from publisher.manifest.reports import FetchedBase
from publisher.recipe.stages import Stage
from worker.context import StageContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.base_folder import make_readable, token_notes
from worker.stages.inputs import FetchInputs
from worker.stages.spec import Digests, StageSpec
from worker.storage.folder import STATE, hash_file, write_json
from worker.storage.store import stage_digest
from worker.transfer.download import download

VERSION = 2


def digest(request: BuildRequest, digests: Digests) -> str:
    base = request.base
    where = {"path": str(base.path)} if base.path is not None else {"repo_id": base.repo_id}
    return stage_digest(Stage.FETCH, VERSION, where | {"revision": base.revision})


def run(request: BuildRequest, inputs: FetchInputs, output: Path, context: StageContext) -> None:
    """Raises RequestFault if a local folder is not the one that was registered, InfrastructureFault if the Hub
    does not answer or sends something else than it lists."""
    facts = inspect(request.base)
    folder = output / "base"
    expected: Mapping[str, str] = {}
    if request.base.path is not None:
        _link(request.base.path, facts, folder)
    else:
        downloads = output / STATE / "download"
        expected = download(request.base, facts.files, downloads, context)
        downloads.rename(folder)
    files = _hash(folder, facts.files, context)
    _refuse_other_content(request.base, files, expected)
    if request.base.path is None:
        facts = inspect_folder(folder)  # what was sampled before is compared in full
    rewritten = make_readable(folder, facts)
    for note in dict.fromkeys([*facts.notes, *_token_notes(request, folder, facts, context)]):
        context.log(f"Note: {note}.")
    model = {name: found for name, found in files.items() if not is_document(name)}
    fetched = FetchedBase(
        repo_id=request.base.repo_id, revision=request.base.revision, files=model, rewritten=rewritten
    )
    write_json(output / "base.json", fetched.content())


def _token_notes(request: BuildRequest, folder: Path, facts: BaseModelFacts, context: StageContext) -> list[str]:
    """A tokenizer that cannot be loaded is in the way of recipes that read text only."""
    try:
        return token_notes(folder, facts)
    except UnsupportedModel:
        raise
    except RequestFault as fault:
        if request.recipe.corpus_names():
            raise
        context.log(f"Warning: {fault.message}")
        return []


def inspect(base: BaseModelSource) -> BaseModelFacts:
    """Facts of exactly the pinned base model."""
    if base.path is None:
        return inspect_repository(base.repo_id, base.revision, base.endpoint, base.token)
    facts = inspect_folder(base.path)
    if facts.revision != base.revision:
        raise RequestFault(
            f"{base.path} has changed: it was registered as {base.revision[:12]} and is {facts.revision[:12]} now.",
            way_out="Register the folder again and ask for the variant of the new base model.",
        )
    return facts


def _link(source: Path, facts: BaseModelFacts, folder: Path) -> None:
    for name in facts.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to((source / name).resolve())


def _hash(folder: Path, sizes: Mapping[str, int], context: StageContext) -> dict[str, FileRecord]:
    total, done = sum(sizes.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        context.progress(done, total, "bytes hashed")

    return {name: _record(folder / name, advance) for name in sorted(sizes)}


def _record(path: Path, advance: Callable[[int], None]) -> FileRecord:
    with reading(BASE, path):
        return FileRecord(size=path.stat().st_size, sha256=hash_file(path, advance))


def _refuse_other_content(base: BaseModelSource, files: Mapping[str, FileRecord], expected: Mapping[str, str]) -> None:
    for name, sha256 in expected.items():
        if files[name].sha256 != sha256:
            raise InfrastructureFault(
                f"{name} of {base.repo_id} arrived with sha256 {files[name].sha256}; the Hub lists {sha256}.",
                way_out="Try again; if it repeats, a proxy or the disk changes files.",
            )


FETCH = StageSpec(
    name=Stage.FETCH,
    needs=(),
    inputs=FetchInputs.of,
    digest=digest,
    run=run,
)
