"""Plans: what a recipe costs and gives. Nothing is created."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from publisher.api import corpora_schema
from publisher.api.authentication import CurrentCaller
from publisher.api.base_models_schema import facts_of
from publisher.api.errors import documented
from publisher.api.plans_schema import PlanRequest
from publisher.api.service import CurrentService
from publisher.plan.plan import Plan, certificate_notes, make_plan
from publisher.recipe import Recipe
from publisher.store.models import BaseModel
from publisher.store.resources import corpora_by_name, latest_worker
from publisher.store.tenancy import owned

router = APIRouter(prefix="/v1/plans", tags=["plans"])

#: FLOP/s until a worker has measured itself: two CPU cores in float32
UNMEASURED_SPEED = 1e11


@router.post("", responses=documented(404, 409))
def plan_variant(request: PlanRequest, service: CurrentService, caller: CurrentCaller) -> Plan:
    """Plan a variant: parameters, bytes, memory, minutes per stage. Nothing is created."""
    with service.database.read() as session:
        facts = facts_of(owned(session, BaseModel, caller.tenant_id, request.base_model_id))
        notes = _of_corpora(session, caller.tenant_id, request.recipe)
        worker = latest_worker(session)
        speed, fp32_speed = UNMEASURED_SPEED, UNMEASURED_SPEED
        if worker:
            speed, fp32_speed = worker.flops_per_second, worker.fp32_flops_per_second
    planned = make_plan(
        facts.geometry,
        request.recipe,
        base_bytes=facts.bytes,
        flops_per_second=speed,
        fp32_flops_per_second=fp32_speed,
    )
    return planned.model_copy(update={"notes": [*facts.notes, *planned.notes, *notes]})


def _of_corpora(session: Session, tenant_id: str, recipe: Recipe) -> list[str]:
    """A plan may name corpora that are not registered yet: nothing is said of those."""
    if recipe.evaluation is None:
        return []
    corpus = recipe.evaluation.corpora[0]
    rows = corpora_by_name(session, tenant_id, [corpus])
    facts = corpora_schema.facts_of(rows[corpus]) if corpus in rows else None
    return [] if facts is None else certificate_notes(recipe, corpus, facts.held_out_documents)
