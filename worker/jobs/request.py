"""From a job's rows to what the pipeline runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from publisher.corpus.dataset import HubAccess
from publisher.corpus.source import CorpusSource, DatasetShelf
from publisher.errors import RequestFault
from publisher.jobs.leases import Lease, job_of
from publisher.recipe import Recipe
from publisher.recipe.stored import stored_recipe
from publisher.settings import Settings
from publisher.store.models import BaseModel, Corpus
from publisher.store.resources import corpora_by_name
from worker.jobs.target import publish_target
from worker.request import BaseModelSource, BuildRequest
from worker.storage.store import StageStore

if TYPE_CHECKING:  # its module imports torch, which takes seconds
    from worker.models.device import Device


def read_request(
    session: Session, settings: Settings, lease: Lease, device: str, devices: Sequence[Device] = ()
) -> BuildRequest:
    """`devices`: what the align stage may use, all else runs on `device`. That they hold the job was seen when it was
    claimed.

    Raises RequestFault if the recipe is of another version and cannot be read or a corpus that it names is gone,
    CredentialFault without a token to publish.
    """
    job = job_of(session, lease)
    recipe = stored_recipe(job.variant.recipe, job.variant.recipe_version)
    return BuildRequest(
        base=_base(job.variant.base_model, settings),
        recipe=recipe,
        corpora=_corpora(session, job.tenant_id, recipe, settings),
        publish=publish_target(job.variant, settings, lease),
        device=device,
        tasks_folder=settings.lm_eval_tasks,
        devices=tuple(one.name for one in devices),
    )


def secrets_of(request: BuildRequest) -> list[str]:
    """What must not be shown to anybody."""
    tokens = [request.base.token, request.publish.token if request.publish else None]
    tokens += [source.shelf.access.token for source in request.corpora.values() if source.shelf]
    return [token for token in tokens if token]


def _base(base: BaseModel, settings: Settings) -> BaseModelSource:
    size = sum(base.facts.get("files", {}).values())
    if base.path is not None:
        published_as = base.facts.get("published_as")
        return BaseModelSource(base.repo_id, base.revision, Path(base.path), published_as=published_as, bytes=size)
    token = _read_token(settings)
    return BaseModelSource(base.repo_id, base.revision, endpoint=settings.base_model_endpoint, token=token, bytes=size)


def _read_token(settings: Settings) -> str | None:
    return settings.base_model_token.get_secret_value() if settings.base_model_token else None


def _shelf(settings: Settings) -> DatasetShelf:
    folder = StageStore(settings.stages_dir).datasets
    return DatasetShelf(folder, HubAccess(settings.base_model_endpoint, _read_token(settings)))


def _corpora(session: Session, tenant_id: str, recipe: Recipe, settings: Settings) -> Mapping[str, CorpusSource]:
    names = recipe.corpus_names()
    shelf = _shelf(settings)
    rows = corpora_by_name(session, tenant_id, names)
    found = {name: _corpus(row, shelf) for name, row in rows.items()}
    for name in names:
        if name not in found:
            way_out = "Register it again and retry the job."
            raise RequestFault(f"corpus {name} does not exist any more.", way_out=way_out)
    return {name: found[name] for name in names}


def _corpus(row: Corpus, shelf: DatasetShelf) -> CorpusSource:
    """Files have to be those that were counted when the corpus was registered."""
    as_registered = {"shelf": shelf, "expected_digest": row.facts.get("content_digest")}
    return CorpusSource.model_validate(row.source | as_registered)
