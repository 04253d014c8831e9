"""Plans: what a recipe costs and gives. Nothing is created."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from publisher.api import corpora_schema
from publisher.api.authentication import Caller, CurrentCaller
from publisher.api.base_models_schema import facts_of
from publisher.api.errors import documented
from publisher.api.plans_schema import PlanAnswer, PlannedWorker, PlanRequest, Refusal
from publisher.api.service import CurrentService, Service
from publisher.api.variant_checks import check_recipe
from publisher.base_model.facts import BaseModelFacts
from publisher.errors import RequestFault
from publisher.jobs.fleet import live_fleet
from publisher.plan.plan import certificate_notes, make_plan
from publisher.recipe import Recipe
from publisher.store.models import BaseModel
from publisher.store.resources import corpora_by_name, latest_worker
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/plans", tags=["plans"])

#: FLOP/s until a worker has measured itself: two CPU cores in float32
UNMEASURED_SPEED = 1e11


@router.post("", responses=documented(404, 409))
def plan_variant(request: PlanRequest, service: CurrentService, caller: CurrentCaller) -> PlanAnswer:
    """Plan a variant: parameters, bytes, memory, minutes per stage, workers that hold it. Nothing is created."""
    with service.database.read() as session:
        return plan_of(session, service, caller, request)


def plan_of(session: Session, service: Service, caller: Caller, request: PlanRequest) -> PlanAnswer:
    """Raises NotFound for a base model of somebody else, RequestFault for a recipe that leaves nothing of a layer."""
    facts = facts_of(owned(session, BaseModel, caller.tenant_id, request.base_model_id))
    notes = _of_corpora(session, caller.tenant_id, request.recipe)
    refused = _refused(session, caller, facts, request.recipe)
    worker = latest_worker(session)
    speed, fp32_speed = UNMEASURED_SPEED, UNMEASURED_SPEED
    if worker:
        speed, fp32_speed = worker.flops_per_second, worker.fp32_flops_per_second
    fleet = live_fleet(session, service.settings.lease_seconds)
    planned = make_plan(
        facts.geometry,
        request.recipe,
        base_bytes=facts.bytes,
        is_local=facts.path is not None,
        flops_per_second=speed,
        fp32_flops_per_second=fp32_speed,
    )
    planned = planned.model_copy(update={"notes": [*facts.notes, *planned.notes, *notes]})
    chosen = fleet.suitable_ids(planned.needs)
    workers = [PlannedWorker.of(worker, planned.needs, chosen=worker.id in chosen) for worker in fleet.workers]
    return PlanAnswer(**dict(planned), workers=workers, missing=fleet.missing(planned.needs), refused=refused)


def _refused(session: Session, caller: Caller, facts: BaseModelFacts, recipe: Recipe) -> Refusal | None:
    """What a variant would be refused for, by the same checks: a corpus, say, that is yet to be registered."""
    try:
        check_recipe(session, caller, facts, recipe)
    except RequestFault as fault:
        return Refusal(field=fault.field, message=fault.message, way_out=fault.way_out)
    return None


def _of_corpora(session: Session, tenant_id: str, recipe: Recipe) -> list[str]:
    """A plan may name corpora that are not registered yet: nothing is said of those."""
    if recipe.evaluation is None:
        return []
    corpus = recipe.evaluation.corpora[0]
    rows = corpora_by_name(session, tenant_id, [corpus])
    facts = corpora_schema.facts_of(rows[corpus]) if corpus in rows else None
    return [] if facts is None else certificate_notes(recipe, corpus, facts.held_out_documents)
