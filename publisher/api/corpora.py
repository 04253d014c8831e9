"""Corpora: text by name. Files are read through once when registered, a dataset is pinned and looked into."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Response, status
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.corpora_schema import CorpusAnswer, CorpusRequest, source_of
from publisher.api.errors import documented
from publisher.api.filters import ListedFilters
from publisher.api.labels import LabelChange
from publisher.api.local_paths import allowed_path
from publisher.api.outside import READING_SECONDS, CurrentOutside, Outside
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService, Service
from publisher.corpus.count_process import count_apart
from publisher.corpus.dataset import HubAccess, HubDataset
from publisher.corpus.facts import CorpusFacts
from publisher.corpus.source import CorpusSource
from publisher.errors import Conflict
from publisher.hub_client.deadline import answers_within
from publisher.settings import Settings
from publisher.store import deletion, hub_credentials
from publisher.store import filters as filtered
from publisher.store.audit import record
from publisher.store.labels import change_labels, set_labels
from publisher.store.models import Corpus
from publisher.store.paging import newest_first
from publisher.store.resources import find_corpus
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/corpora", tags=["corpora"])


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=documented(409, 429) | {200: {"model": CorpusAnswer, "description": "registered before"}},
)
async def register_corpus(
    request: CorpusRequest, service: CurrentService, caller: CurrentCaller, outside: CurrentOutside, response: Response
) -> CorpusAnswer:
    """Register a corpus.

    Every document of files is read and counted. A dataset of the Hub is pinned to a commit and its first document
    read; the jobs read the others. The same name and source again is answered 200, with fresh counts; the same name
    with another source is a conflict.
    """
    row, is_new = await register(request, service, outside, caller)
    if not is_new:
        response.status_code = status.HTTP_200_OK
    return CorpusAnswer.of(row)


async def register(request: CorpusRequest, service: Service, outside: Outside, caller: Caller) -> tuple[Corpus, bool]:
    """The row, and whether it is new. Raises RequestFault for text that cannot be read, Conflict for a name that is
    taken, InfrastructureFault where a Hub or a disk does not answer."""
    lane, asked = outside.readings, request.path
    if asked is None:
        lane, asked = outside.calls, f"the Hub {service.settings.base_model_endpoint}"
    source, facts = await lane.run(caller.tenant_id, asked, lambda: _examine(service, caller, request))
    return await run_in_threadpool(_save, service, caller, source, facts, request.labels)


def _examine(service: Service, caller: Caller, request: CorpusRequest) -> tuple[CorpusSource, CorpusFacts | None]:
    """What is registered, and what was counted of it: None for a dataset, of which one text was read."""
    access = _hub_access(service, caller)
    with answers_within(service.settings.outside_seconds):
        source = _source(request, service.settings, caller, access)
    _refuse_taken_name(service, caller, source)
    if source.dataset is None:
        return source, count_apart(source, READING_SECONDS)
    _look_into(source.dataset, source.text_field, access, service.settings.outside_seconds)
    return source, None


def _hub_access(service: Service, caller: Caller) -> HubAccess:
    with service.database.read() as session:
        token = hub_credentials.read_token(session, service.settings, caller.tenant_id)
    return HubAccess(service.settings.base_model_endpoint, token)


def _source(request: CorpusRequest, settings: Settings, caller: Caller, access: HubAccess) -> CorpusSource:
    known = request.model_dump(include={"name", "text_field", "held_out_fraction"})
    if request.path is not None:
        return CorpusSource(path=allowed_path(request.path, settings, caller.local_roots), **known)
    assert request.dataset is not None
    dataset = HubDataset(
        repo_id=request.dataset,
        revision=access.pin(request.dataset, request.revision),
        config=request.config,
        split=request.split,
        documents=request.documents,
    )
    return CorpusSource(dataset=dataset, **known)


def _look_into(dataset: HubDataset, text_field: str, access: HubAccess, seconds: float) -> None:
    """RequestFault if the first text cannot be read."""
    for _ in access.read(dataset, text_field, first_only=True, seconds=seconds):
        pass


def _refuse_taken_name(service: Service, caller: Caller, source: CorpusSource) -> None:
    with service.database.read() as session:
        found = find_corpus(session, caller.tenant_id, source.name)
    if found is not None and not source_of(found).is_same_as(source):
        raise _name_taken(source.name)


def _save(
    service: Service, caller: Caller, source: CorpusSource, facts: CorpusFacts | None, labels: Mapping[str, str]
) -> tuple[Corpus, bool]:
    try:
        return _save_once(service, caller, source, facts, labels)
    except IntegrityError:
        # PostgreSQL lets two transactions look before either writes; the one that lost finds the other's row
        return _save_once(service, caller, source, facts, labels)


def _save_once(
    service: Service, caller: Caller, source: CorpusSource, facts: CorpusFacts | None, labels: Mapping[str, str]
) -> tuple[Corpus, bool]:
    with service.database.write() as session:
        found = find_corpus(session, caller.tenant_id, source.name)
        row = found or Corpus(
            tenant_id=caller.tenant_id, name=source.name, source=source.model_dump(mode="json"), facts={}
        )
        if not source_of(row).is_same_as(source):
            raise _name_taken(source.name)
        counted = facts.model_dump() if facts else {}
        changed, row.facts = row.facts != counted, counted
        session.add(row)
        session.flush()
        if found is None:
            set_labels(session, row, labels)
            record(session, "corpus.register", row.id, tenant_id=row.tenant_id, name=row.name)
            return row, True
        if changed:
            record(session, "corpus.count", row.id, tenant_id=row.tenant_id, name=row.name)
        if labels:
            change_labels(session, row, labels)
        return row, False


def _name_taken(name: str) -> Conflict:
    return Conflict(
        f"there is already a corpus {name} with another source.",
        field="name",
        way_out="Choose another name: recipes that ran refer to the old one.",
    )


@router.get("", responses=documented(401))
def list_corpora(
    service: CurrentService, caller: CurrentCaller, page: RequestedPage, filters: ListedFilters
) -> Page[CorpusAnswer]:
    """List corpora."""
    with service.database.read() as session:
        rows = newest_first(session, filtered.corpora(caller.tenant_id, filters), Corpus, page.cursor, page.limit)
    return Page(items=[CorpusAnswer.of(row) for row in rows.items], next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_corpus(id: str, service: CurrentService, caller: CurrentCaller) -> CorpusAnswer:
    """Get a corpus."""
    with service.database.read() as session:
        return CorpusAnswer.of(owned(session, Corpus, caller.tenant_id, id))


@router.patch("/{id}", responses=documented(401, 404, 422))
def change_corpus(id: str, change: LabelChange, service: CurrentService, caller: CurrentCaller) -> CorpusAnswer:
    """Change a corpus's labels."""
    with service.database.write() as session:
        row = owned(session, Corpus, caller.tenant_id, id)
        change_labels(session, row, change.labels)
        return CorpusAnswer.of(row)


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 404, 409))
def delete_corpus(id: str, service: CurrentService, caller: CurrentCaller) -> None:
    """Forget a corpus that no variant's recipe names. Its files stay where they are."""
    forget(service, caller, id)


def forget(service: Service, caller: Caller, id: str) -> None:
    """Raises NotFound, or Conflict with who uses it."""
    with service.database.write() as session:
        deletion.delete_corpus(session, owned(session, Corpus, caller.tenant_id, id))
