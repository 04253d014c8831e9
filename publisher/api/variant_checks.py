"""What can be known to fail before a job is queued: hours are not spent to find it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy.orm import Session

from publisher.api import base_models_schema, corpora_schema
from publisher.api.authentication import Caller
from publisher.api.service import Service
from publisher.api.variants_schema import PublishRequest, VariantRequest
from publisher.architecture.sparsity import pruned_parameters
from publisher.base_model.facts import BaseModelFacts
from publisher.corpus.facts import CorpusFacts
from publisher.corpus.needs import TextNeed, check_amount, text_needs
from publisher.errors import InfrastructureFault, RequestFault
from publisher.hub.faults import Forbidden
from publisher.hub.names import RepositoryId
from publisher.hub.room import refuse_over_storage
from publisher.hub.storage import OWN_NAMESPACE, HubStorage
from publisher.hub_client.repo_id import check_repo_id
from publisher.manifest.verdict import MORE_DOCUMENTS
from publisher.plan.plan import certificate_notes, published_bytes
from publisher.recipe import Recipe
from publisher.store import hub_credentials, namespaces
from publisher.store.models import BaseModel
from publisher.store.quotas import STORED_BYTES, limit_of
from publisher.store.resources import corpora_by_name, corpus_names
from publisher.store.tenancy import owned


def check_variant(
    session: Session, service: Service, caller: Caller, request: VariantRequest, *, kept: bool = False
) -> BaseModel:
    """The base model. Raises RequestFault, naming the field, for a request whose job could only fail.

    `kept`: nobody deletes base model and corpora until the transaction ends.
    """
    check_publishing(session, service, caller, request.publish)
    base = owned(session, BaseModel, caller.tenant_id, request.base_model_id, kept=kept)
    facts = base_models_schema.facts_of(base)
    check_recipe(session, caller, facts, request.recipe, kept=kept)
    check_room(session, service, caller, facts, request.recipe)
    return base


def check_recipe(
    session: Session, caller: Caller, facts: BaseModelFacts, recipe: Recipe, *, kept: bool = False
) -> None:
    """Raises RequestFault, naming the field, for a recipe that could only fail on this base model. `kept` as above."""
    for fault in recipe_faults(session, caller, facts, recipe, kept=kept):
        raise fault


def recipe_faults(
    session: Session, caller: Caller, facts: BaseModelFacts, recipe: Recipe, *, kept: bool = False
) -> Iterator[RequestFault]:
    """Everything that such a recipe would be refused for, one after the other."""
    try:
        pruned_parameters(facts.geometry, recipe.pruning)  # refuses what cannot be pruned so
        _check_tokenizer(facts, recipe)
    except RequestFault as fault:
        yield fault
    yield from _text_faults(session, caller, recipe, kept=kept)


def check_room(session: Session, service: Service, caller: Caller, facts: BaseModelFacts, recipe: Recipe) -> None:
    """Whether what is to be published fits into the tenant's part of the embedded Hub, as far as can be planned."""
    if service.hub is not None and limit_of(session, caller.tenant_id, STORED_BYTES) is not None:
        planned = published_bytes(facts.geometry, recipe, base_bytes=facts.bytes)
        refuse_over_storage(session, caller.tenant_id, {"the checkpoint": planned})


def check_publishing(session: Session, service: Service, caller: Caller, publish: PublishRequest) -> None:
    """Raises RequestFault for a name or namespace that cannot be had, InfrastructureFault without a token for it."""
    check_repo_id(publish.repo_id)
    if hub_credentials.find(session, caller.tenant_id) is not None:
        return  # the job asks the tenant's Hub before it computes
    if service.hub is not None:
        _check_namespace(session, service.hub, caller, publish)
    elif service.settings.hub_token is None:
        raise InfrastructureFault(
            f"this service has no token to publish to {service.settings.hub_endpoint}.",
            way_out="Its operator sets PUBLISHER_HUB_TOKEN, or you send a token for a Hub of your own "
            f"({hub_credentials.PUT}).",
        )


def _check_namespace(session: Session, hub: HubStorage, caller: Caller, publish: PublishRequest) -> None:
    try:
        id = RepositoryId.parse(publish.repo_id)
    except RequestFault as error:
        raise RequestFault(error.message, field="publish.repo_id", way_out=error.way_out) from error
    # by this transaction: one that takes another connection while it holds one can wait for itself
    if not namespaces.may_use(session, id.namespace, caller.tenant_id, lambda: hub.namespace_tenant(id.namespace)):
        raise Forbidden(
            f"namespace {id.namespace!r} belongs to somebody else, or to nobody yet.",
            field="publish.repo_id",
            way_out=OWN_NAMESPACE,
        )


def _check_tokenizer(facts: BaseModelFacts, recipe: Recipe) -> None:
    if recipe.corpus_names() and not facts.has_tokenizer:
        raise RequestFault(
            f"base model {facts.repo_id} has no tokenizer, and the recipe reads text.",
            field="base_model_id",
            way_out="Register a copy with its tokenizer.json.",
        )


def _text_faults(session: Session, caller: Caller, recipe: Recipe, *, kept: bool) -> Iterator[RequestFault]:
    rows = corpora_by_name(session, caller.tenant_id, recipe.corpus_names(), kept=kept)
    facts = {name: corpora_schema.facts_of(row) for name, row in rows.items()}
    for need in text_needs(recipe):
        try:
            _check_need(session, caller, need, facts)
        except RequestFault as fault:
            yield fault
    yield from _certificate_faults(recipe, facts)


def _check_need(session: Session, caller: Caller, need: TextNeed, facts: Mapping[str, CorpusFacts | None]) -> None:
    if need.corpus not in facts:
        known = corpus_names(session, caller.tenant_id)
        raise RequestFault(
            f"there is no corpus {need.corpus!r}.",
            field=need.field,
            way_out=f"Registered: {', '.join(known)}." if known else "Register it with POST /v1/corpora.",
        )
    found = facts[need.corpus]
    if found is not None:  # nobody has counted a dataset's documents: the stages do
        check_amount(need, found)


def _certificate_faults(recipe: Recipe, facts: Mapping[str, CorpusFacts | None]) -> Iterator[RequestFault]:
    """A certificate that can only be inconclusive, where nothing is published without one that passes."""
    if recipe.evaluation is None or recipe.evaluation.require_certificate is not True:
        return
    corpus = recipe.evaluation.corpora[0]
    found = facts.get(corpus)
    for note in certificate_notes(recipe, corpus, found.held_out_documents) if found else ():
        yield RequestFault(f"{note}.", field="recipe.evaluation.require_certificate", way_out=MORE_DOCUMENTS)
