"""Making commits, and reading the history."""

from __future__ import annotations

from itertools import islice

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from publisher.hub.access import CurrentHub, KnownCaller, Readable, Segment, Writable, current_caller
from publisher.hub.bodies import CommitBody
from publisher.hub.commits import Commit
from publisher.hub.drafts import CommitDraft
from publisher.hub.endpoints.uploads import in_pieces
from publisher.hub.links import repository_url
from publisher.hub.pages import Cursor, add_next_link
from publisher.hub.protocol import CommitAuthor, CommitDone, CommitEntry, FormattedText
from publisher.hub.uploads import refuse_pull_request

router = APIRouter(prefix="/api/models/{namespace}/{name}")
_PAGE = 100
# All small files of a commit together, in base64. They go to disk one by one; this only bounds the disk.
_MAX_COMMIT_BYTES = 2 * 1024**3


@router.post("/commit/{revision}", max_body_size=_MAX_COMMIT_BYTES)
async def commit(
    *,
    request: Request,
    hub: CurrentHub,
    repository: Writable,
    caller: KnownCaller,
    revision: Segment,
    create_pr: str = "",
) -> CommitDone:
    """All operations or none."""
    refuse_pull_request(create_pr)
    draft = CommitDraft(repository)
    with CommitBody(draft) as body:
        async for piece in in_pieces(request.stream()):
            await run_in_threadpool(body.feed, piece)
        await run_in_threadpool(body.end)
    change = draft.change(branch=revision.removeprefix("refs/heads/"), author=caller.name)
    # the body may have been on its way for hours: a token that is over by now moves no branch
    made = await run_in_threadpool(repository.commit, change, lambda: current_caller(request, hub))
    address = repository_url(hub.url(request), repository.id)
    return CommitDone(commit_oid=made.id, commit_url=f"{address}/commit/{made.id}")


@router.get("/commits/{revision}")
def list_commits(
    *,
    request: Request,
    response: Response,
    hub: CurrentHub,
    repository: Readable,
    revision: Segment,
    cursor: Cursor = 0,
) -> list[CommitEntry]:
    """Newest first."""
    found = list(islice(repository.history(revision), cursor, cursor + _PAGE + 1))
    add_next_link(request, response, hub.url(request), cursor + _PAGE if len(found) > _PAGE else None)
    return [_entry(commit) for commit in found[:_PAGE]]


def _entry(commit: Commit) -> CommitEntry:
    return CommitEntry(
        id=commit.id,
        title=commit.title,
        message=commit.message,
        authors=[CommitAuthor(user=commit.author)],
        date=commit.date,
        formatted=FormattedText(title=commit.title, message=commit.message),
    )
