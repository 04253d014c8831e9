"""Pages of corpora: the list, one with a sample of its text, registering, forgetting."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from publisher.api import corpora as api_corpora
from publisher.api.corpora_schema import CorpusAnswer, CorpusRequest, source_of
from publisher.api.local_paths import allowed_path
from publisher.api.outside import CurrentOutside
from publisher.api.service import CurrentService, Service
from publisher.corpus.files import text_files
from publisher.corpus.sample import Excerpt, sample
from publisher.corpus.source import CorpusSource
from publisher.dashboard.access import CurrentVisitor, RegisteringVisitor, RegistrarLooking, Visitor
from publisher.dashboard.answers import PageRoute, page, see_other
from publisher.dashboard.first_steps import first_steps
from publisher.dashboard.listing import PAGE, Cursor
from publisher.dashboard.registration import Registration
from publisher.dashboard.typed_form import ModelForm, Section, TypedForm
from publisher.errors import PublisherError
from publisher.store.database import clock
from publisher.store.deletion import MOST_NAMED, variants_that_name
from publisher.store.models import Corpus
from publisher.store.paging import newest_first
from publisher.store.tenancy import owned, readable_by

router = APIRouter(prefix="/corpora", route_class=PageRoute)

_FILES = Section(
    "Files of this service's machines",
    "JSON Lines (.jsonl, .jsonl.gz), Parquet or text (.txt, one document a file), one or a folder of them. Every "
    "document is read and counted now; a path has to be there on every machine that runs workers.",
    ("path",),
)
_DATASET = Section(
    "Or a dataset of the Hub",
    "It is pinned to a commit and its first document read; the jobs read the others.",
    ("dataset", "config", "split", "revision", "documents"),
)
_ABOVE = Section("", "", ("name",))
_READING = Section("How it is read", "", ("text_field", "held_out_fraction", "labels"))
REGISTRATION = Registration(
    form=ModelForm(CorpusRequest, (_ABOVE, _FILES, _DATASET, _READING)),
    start="/corpora",
    word="Corpora",
    title="Register a corpus",
    busy="Reading the text…",
    of_folders=_FILES,
    required=frozenset({"name"}),
)


@router.get("")
def corpora(service: CurrentService, visitor: CurrentVisitor, cursor: Cursor = None) -> HTMLResponse:
    with service.database.read() as session:
        rows = newest_first(session, readable_by(visitor.tenant_id, Corpus), Corpus, cursor, PAGE)
        return page(
            "corpora.html",
            visitor=visitor,
            now=clock(session),
            corpora=[CorpusAnswer.of(row) for row in rows.items],
            cursor=cursor,
            next_cursor=rows.next_cursor,
            steps=None if rows.items else first_steps(session, visitor.tenant_id, service.settings.public_url),
        )


@router.get("/new")
def form(service: CurrentService, visitor: RegistrarLooking) -> HTMLResponse:
    return REGISTRATION.shown(service, visitor)


@router.post("/new")
async def register(
    service: CurrentService, visitor: RegisteringVisitor, outside: CurrentOutside, typed: TypedForm
) -> Response:
    async def made(request: CorpusRequest) -> str:
        row, _ = await api_corpora.register(request, service, outside, visitor.caller)
        return row.id

    return await REGISTRATION.answer(service, visitor, typed, made)


@router.get("/{id}")
def corpus(id: str, service: CurrentService, visitor: CurrentVisitor) -> HTMLResponse:
    with service.database.read() as session:
        row = owned(session, Corpus, visitor.tenant_id, id)
        source, answer, used = source_of(row), CorpusAnswer.of(row), variants_that_name(session, row)
        now = clock(session)
    excerpts, unread = _sample(service, visitor, source)
    return page(
        "corpus.html",
        visitor=visitor,
        now=now,
        corpus=answer,
        used=used[:MOST_NAMED],
        used_by_more=len(used) > MOST_NAMED,
        excerpts=excerpts,
        unread=unread,
    )


def _sample(service: Service, visitor: Visitor, source: CorpusSource) -> tuple[list[Excerpt], str | None]:
    """The beginning of its first file, and why there is none. Of a dataset nothing lies here."""
    if source.path is None:
        return [], None
    try:
        file = text_files(source.path)[0]
        # links may lead elsewhere than when it was registered
        allowed_path(str(file.path), service.settings, visitor.caller.local_roots)
        return sample(file, source.text_field), None
    except PublisherError as fault:
        return [], str(fault)


@router.post("/{id}/delete")
def delete(id: str, service: CurrentService, visitor: RegisteringVisitor) -> Response:
    api_corpora.forget(service, visitor.caller, id)
    return see_other("/corpora")
