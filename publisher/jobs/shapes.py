"""What every job keeps of its variant to find a worker and to be forecast: needs, queue, likeness."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from sqlalchemy import update
from sqlalchemy.orm import Session

from publisher.base_model.facts import BaseModelFacts
from publisher.errors import PublisherError
from publisher.plan.needs import Needs
from publisher.plan.plan import needs_of_recipe
from publisher.plan.queues import queue_of
from publisher.recipe.stored import stored_recipe
from publisher.store.models import BaseModel, Job, Variant

#: of jobs of which nothing is known: what is wrong with them says the worker that tries
UNKNOWN = "unknown"


def shape_of(session: Session, variant: Variant) -> dict[str, Any]:
    """Columns of a job that makes `variant`; `needs` is None if recipe or base model cannot be read any more."""
    base = session.get_one(BaseModel, variant.base_model_id)
    needs = _needs(_text(base.facts), _text(variant.recipe), variant.recipe_version)
    unseeded = {name: part for name, part in variant.recipe.items() if name != "seed"}
    return {
        "needs": None if needs is None else needs.model_dump(mode="json"),
        "needs_digest": UNKNOWN if needs is None else _digest(needs.model_dump_json()),
        "queue": queue_of(needs),
        "likeness": _digest(_text([base.repo_id, base.revision, unseeded])),
    }


def fill(session: Session, job_id: str) -> Needs | None:
    """Write the shape of a job that an older version of the service made, and return its needs."""
    shape = shape_of(session, session.get_one(Job, job_id).variant)
    session.execute(update(Job).where(Job.id == job_id, Job.needs_digest.is_(None)).values(**shape))
    return read_needs(shape["needs"])


def read_needs(stored: dict[str, Any] | None) -> Needs | None:
    """None, too, for what another version stored and this one cannot read."""
    try:
        return None if stored is None else Needs.model_validate(stored)
    except ValidationError:
        return None


# reckoned by contents, 15 ms for a large model: a sweep or many replays of one request ask for the same
@lru_cache(maxsize=256)
def _needs(facts: str, recipe: str, version: int) -> Needs | None:
    try:
        base = BaseModelFacts.model_validate_json(facts)
        asked = stored_recipe(json.loads(recipe), version)
        return needs_of_recipe(base.geometry, asked, base_bytes=base.bytes, is_local=base.path is not None)
    except (ValidationError, PublisherError):
        return None


def _text(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
