"""From a job's rows to what the pipeline runs on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from publisher.client.extras import require
from publisher.configuration.signing_key import ModelKey
from publisher.corpus.dataset import HubAccess
from publisher.corpus.source import CorpusSource, DatasetShelf
from publisher.errors import RequestFault
from publisher.jobs.leases import Lease, job_of
from publisher.recipe import Recipe
from publisher.recipe.stored import stored_recipe
from publisher.settings import Settings
from publisher.store import hub_credentials
from publisher.store.models import BaseModel, Corpus
from publisher.store.resources import corpora_by_name
from worker.jobs.target import publish_target
from worker.request import BaseModelSource, BuildRequest, Invocation
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
    read_token = hub_credentials.read_token(session, settings, job.tenant_id)
    recipe = stored_recipe(job.variant.recipe, job.variant.recipe_version)
    return BuildRequest(
        base=_base(job.variant.base_model, settings, read_token),
        recipe=recipe,
        corpora=_corpora(session, job.tenant_id, recipe, HubAccess(settings.base_model_endpoint, read_token), settings),
        publish=publish_target(session, job.variant, settings, lease),
        device=device,
        tasks_folder=settings.lm_eval_tasks,
        devices=tuple(one.name for one in devices),
        signing_key=_signing_key(settings),
        invocation=Invocation(job.id, datetime.fromtimestamp(job.started_at or time.time(), UTC)),
    )


def secrets_of(request: BuildRequest) -> list[str]:
    """What must not be shown to anybody."""
    tokens = [request.base.token, request.publish.token if request.publish else None]
    tokens += [source.shelf.access.token for source in request.corpora.values() if source.shelf]
    return [token for token in tokens if token]


def _signing_key(settings: Settings) -> ModelKey | None:
    """Raises MissingExtra at once where it is set and nothing here could sign with it."""
    if settings.signing_key is None:
        return None
    require("sign")
    return ModelKey.read(settings.signing_key.get_secret_value(), "PUBLISHER_SIGNING_KEY")


def _base(base: BaseModel, settings: Settings, token: str | None) -> BaseModelSource:
    size = sum(base.facts.get("files", {}).values())
    if base.path is not None:
        published_as = base.facts.get("published_as")
        return BaseModelSource(base.repo_id, base.revision, Path(base.path), published_as=published_as, bytes=size)
    return BaseModelSource(base.repo_id, base.revision, endpoint=settings.base_model_endpoint, token=token, bytes=size)


def _corpora(
    session: Session, tenant_id: str, recipe: Recipe, access: HubAccess, settings: Settings
) -> Mapping[str, CorpusSource]:
    names = recipe.corpus_names()
    rows = corpora_by_name(session, tenant_id, names)
    shelf = DatasetShelf(StageStore(settings.stages_dir).datasets, access)
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
