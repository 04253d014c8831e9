"""Rows that go, with those that belong to them; and who still uses what is to go."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, cast, delete, select
from sqlalchemy.orm import Session, load_only

from publisher.errors import Conflict
from publisher.recipe import Recipe
from publisher.store.audit import record
from publisher.store.labels import forget_labels
from publisher.store.models import (
    BaseModel,
    Corpus,
    Job,
    JobAttempt,
    JobEvent,
    MetricPoint,
    Sweep,
    Variant,
    VariantFile,
)
from publisher.store.tenancy import hold
from publisher.store.variant_content import recipe_of

#: ids that a refusal names
MOST_NAMED = 20


def delete_job(session: Session, job: Job) -> None:
    """With its events, attempts and series."""
    for table in (JobEvent, JobAttempt, MetricPoint):
        session.execute(delete(table).where(table.job_id == job.id))
    session.delete(job)
    session.flush()


def delete_variant(session: Session, variant: Variant) -> None:
    """With its jobs. What it published stays where it is."""
    hold(session, variant)
    for job in list(variant.jobs):
        delete_job(session, job)
    session.execute(delete(VariantFile).where(VariantFile.variant_id == variant.id))
    session.expire(variant, ["jobs", "files"])
    record(session, "variant.delete", variant.id, tenant_id=variant.tenant_id, repo_id=variant.publish_repo_id)
    _delete_labelled(session, variant)


def delete_base_model(session: Session, row: BaseModel) -> None:
    """Conflict if a variant was made from it."""
    hold(session, row)
    made = select(Variant.id).where(Variant.base_model_id == row.id).order_by(Variant.id).limit(MOST_NAMED + 1)
    refuse_used(f"base model {row.id}", session.scalars(made).all())
    record(session, "base_model.delete", row.id, tenant_id=row.tenant_id, repo_id=row.repo_id)
    _delete_labelled(session, row)


def delete_corpus(session: Session, row: Corpus) -> None:
    """Conflict if a variant's recipe names it: its name would come to mean another text."""
    hold(session, row)  # requests that are about to name it wait, and find it gone
    refuse_used(f"corpus {row.name}", [variant.id for variant in variants_that_name(session, row)])
    record(session, "corpus.delete", row.id, tenant_id=row.tenant_id, name=row.name)
    _delete_labelled(session, row)


def delete_sweep(session: Session, row: Sweep) -> None:
    """Conflict while variants of it are there."""
    hold(session, row)
    refuse_used(f"sweep {row.id}", [variant.id for variant in row.variants])
    record(session, "sweep.delete", row.id, tenant_id=row.tenant_id)
    session.delete(row)
    session.flush()


def refuse_used(what: str, variants: Sequence[str]) -> None:
    """Conflict that names the variants, if there are any."""
    if not variants:
        return
    named = ", ".join(variants[:MOST_NAMED]) + (" and more" if len(variants) > MOST_NAMED else "")
    word = "variant" if len(variants) == 1 else "variants"
    raise Conflict(
        f"{what} is used by {word} {named}.",
        way_out="Delete them first, by DELETE /v1/variants/{id}; what they published stays unless you say otherwise.",
    )


def variants_that_name(session: Session, corpus: Corpus) -> list[Variant]:
    """At most one more than are named. The database looks for the name anywhere in the recipe's text, its fields are
    looked at here."""
    naming = cast(Variant.recipe, Text).contains(f'"{corpus.name}"', autoescape=True)
    rows = select(Variant).where(Variant.tenant_id == corpus.tenant_id, naming).order_by(Variant.id)
    light = load_only(Variant.recipe, Variant.recipe_version, Variant.publish_repo_id)
    found: list[Variant] = []
    with session.scalars(rows.options(light)) as read:
        for row in read.yield_per(100):
            recipe = recipe_of(row)
            # of a recipe that cannot be read nobody knows what it does with the name
            if not isinstance(recipe, Recipe) or corpus.name in recipe.corpus_names():
                found.append(row)
            if len(found) > MOST_NAMED:
                break
    return found


def _delete_labelled(session: Session, row: BaseModel | Corpus | Variant) -> None:
    hold(session, row)  # before its labels, as those who change them do
    forget_labels(session, row.id)
    session.delete(row)
    session.flush()
