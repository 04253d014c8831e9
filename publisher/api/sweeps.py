"""Sweeps: many variants asked for at once. They share what they can: one calibration serves all ratios."""

from __future__ import annotations

from fastapi import APIRouter, Response, status
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.errors import documented
from publisher.api.idempotency import IdempotencyKey, refuse_other_body
from publisher.api.paging import Page, RequestedPage
from publisher.api.service import CurrentService, Service
from publisher.api.sweeps_schema import SweepAnswer, SweepRequest, SweepSummary
from publisher.api.variant_checks import check_variant
from publisher.api.variants import add_variant
from publisher.api.variants_schema import VariantRequest
from publisher.errors import Conflict, RequestFault
from publisher.jobs import service as job_service
from publisher.recipe.variations import Variation, variations
from publisher.store import deletion, sweeps
from publisher.store.audit import record
from publisher.store.models import BaseModel, Sweep, new_id
from publisher.store.paging import newest_first
from publisher.store.resources import corpora_by_name, find_request
from publisher.store.tenancy import owned, readable_by

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])


@router.post("", status_code=status.HTTP_201_CREATED, responses=documented(401, 403, 404, 409, 422, 429))
def create_sweep(
    request: SweepRequest,
    service: CurrentService,
    caller: CurrentCaller,
    response: Response,
    key: IdempotencyKey = None,
) -> SweepAnswer:
    """Make many variants of one recipe: all of them, or none if one could only fail.

    Their jobs wait in the order of the variants. Stages that several have in common are computed once on each machine:
    who needs one that is being made waits for it, and reuses it.
    """
    answer = _earlier_answer(service, caller, request, key)
    if answer is None:
        varied = variations(request.recipe, request.vary)
        wanted = request.requests(varied)
        _check(service, caller, varied, wanted)
        answer, job_ids = _create(service, caller, request, wanted, key)
        if job_ids:
            _dispatch(service, job_ids)
            return answer
    response.headers["Idempotency-Replayed"] = "true"
    return answer


def _check(service: Service, caller: Caller, varied: list[Variation], wanted: list[VariantRequest]) -> None:
    with service.database.read() as session:
        for variation, request in zip(varied, wanted, strict=True):
            try:
                check_variant(session, service, caller, request)
            except RequestFault as fault:
                message = f"with {variation}: {fault.message}"
                raise type(fault)(message, field=fault.field, way_out=fault.way_out) from fault


def _dispatch(service: Service, job_ids: list[str]) -> None:
    for job_id in job_ids:
        if not service.dispatcher.send(job_id):
            return  # the broker is away: the reaper sends the others, too


def _earlier_answer(service: Service, caller: Caller, request: SweepRequest, key: str | None) -> SweepAnswer | None:
    if key is None:
        return None
    with service.database.read() as session:
        found = find_request(session, Sweep, caller.tenant_id, key)
        return None if found is None else _answer_again(session, found, request, key)


def _answer_again(session: Session, found: Sweep, request: SweepRequest, key: str) -> SweepAnswer:
    refuse_other_body(found, request.digest, key)
    return SweepAnswer.whole(found, sweeps.variants_of(session, found.id))


def _create(
    service: Service, caller: Caller, request: SweepRequest, wanted: list[VariantRequest], key: str | None
) -> tuple[SweepAnswer, list[str]]:
    """The answer, and the jobs to dispatch: none if the same request was made at the same time elsewhere."""
    try:
        with service.database.write() as session:
            found = find_request(session, Sweep, caller.tenant_id, key) if key is not None else None
            if found is not None and key is not None:
                return _answer_again(session, found, request, key), []
            told = request.model_dump(mode="json")
            row = Sweep(tenant_id=caller.tenant_id, request=told, request_digest=request.digest, idempotency_key=key)
            session.add(row)
            session.flush()
            base = _keep(session, caller, wanted)
            ids = [[new_id(kind) for _ in wanted] for kind in ("var", "job")]
            for one, variant_id, job_id in zip(wanted, *ids, strict=True):
                variant = add_variant(session, caller, base, one, id=variant_id, sweep_id=row.id)
                job_service.enqueue(session, variant, one.priority, job_id)
            record(session, "sweep.create", row.id, tenant_id=row.tenant_id, variants=ids[0])
            return SweepAnswer.whole(row, sweeps.variants_of(session, row.id)), ids[1]
    except IntegrityError:
        # PostgreSQL lets two transactions look before either writes; the unique key lets one of them win
        answer = _earlier_answer(service, caller, request, key)
        if answer is None:
            raise
        return answer, []


def _keep(session: Session, caller: Caller, wanted: list[VariantRequest]) -> BaseModel:
    """The base model, which stays from now on, as the corpora do; Conflict if one was deleted since the checks."""
    names = {name for request in wanted for name in request.recipe.corpus_names()}
    for gone in sorted(names - set(corpora_by_name(session, caller.tenant_id, names, kept=True))):
        raise Conflict(f"corpus {gone} has just been deleted.", way_out="Register it again, or name another.")
    return owned(session, BaseModel, caller.tenant_id, wanted[0].base_model_id, kept=True)


@router.get("", responses=documented(401))
def list_sweeps(service: CurrentService, caller: CurrentCaller, page: RequestedPage) -> Page[SweepSummary]:
    """List sweeps, with how many of their jobs are in which state."""
    with service.database.read() as session:
        rows = newest_first(session, readable_by(caller.tenant_id, Sweep), Sweep, page.cursor, page.limit)
        states = sweeps.states_of(session, [row.id for row in rows.items])
    items = [SweepSummary.of(row, states[row.id]) for row in rows.items]
    return Page(items=items, next_cursor=rows.next_cursor)


@router.get("/{id}", responses=documented(401, 404))
def get_sweep(id: str, service: CurrentService, caller: CurrentCaller) -> SweepAnswer:
    """Get a sweep with its variants, what each varies, and what came of it."""
    with service.database.read() as session:
        row = owned(session, Sweep, caller.tenant_id, id)
        return SweepAnswer.whole(row, sweeps.variants_of(session, id))


@router.post("/{id}/cancel", responses=documented(401, 404))
def cancel_sweep(id: str, service: CurrentService, caller: CurrentCaller) -> SweepAnswer:
    """Cancel every job of a sweep that has not ended. What was published stays."""
    with service.database.write() as session:
        row = owned(session, Sweep, caller.tenant_id, id)
        live = sweeps.live_jobs(session, id)
        for job_id in live:
            try:
                job_service.cancel(session, job_id)
            except Conflict:
                continue  # it has just ended
        if live:
            record(session, "sweep.cancel", row.id, tenant_id=row.tenant_id, jobs=list(live))
        return SweepAnswer.whole(row, sweeps.variants_of(session, id))


@router.delete("/{id}", status_code=status.HTTP_204_NO_CONTENT, responses=documented(401, 404, 409))
def delete_sweep(id: str, service: CurrentService, caller: CurrentCaller) -> None:
    """Forget a sweep whose variants are all deleted."""
    with service.database.write() as session:
        deletion.delete_sweep(session, owned(session, Sweep, caller.tenant_id, id))
