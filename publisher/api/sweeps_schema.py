"""Sweeps in requests and answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from publisher.api.base_models_schema import facts_of
from publisher.api.jobs_schema import FailureAnswer
from publisher.api.labels import Labels
from publisher.api.plans_schema import RECIPE_EXAMPLE
from publisher.api.variants_schema import Priority, PublishRequest, VariantRequest
from publisher.architecture.sparsity import pruned_parameters
from publisher.errors import RequestFault
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication
from publisher.manifest.verdict import Verdict
from publisher.recipe import Recipe
from publisher.recipe.variations import MOST, Variation, value_at, with_what_varies
from publisher.store import models as tables
from publisher.store.states import JobState
from publisher.store.variant_content import manifest_of, recipe_of

_PLACE = re.compile(r"\{([a-z0-9_.]*)\}")

RecipePath = Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")]


class SweepPublish(BaseModel):
    """Where the checkpoints go."""

    model_config = ConfigDict(extra="forbid")

    repo_id: Annotated[str, Field(min_length=1, max_length=200)] | Annotated[list[str], Field(max_length=MOST)] = Field(
        description="namespace/name with {ratio}, {pruning.ratio} or {n} in it, or one name for each variant in order",
        examples=["my-org/llama-3.1-8b-loram-{ratio}"],
    )
    private: bool = Field(default=False, description="whether the repositories are private")


class SweepRequest(BaseModel):
    """`recipe` with every combination of the values in `vary`; the values of its last field change fastest."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "base_model_id": "base_…",
                    "recipe": RECIPE_EXAMPLE,
                    "vary": {"pruning.ratio": [0.5, 0.65, 0.8]},
                    "publish": {"repo_id": "my-org/llama-3.1-8b-loram-{ratio}"},
                }
            ]
        },
    )

    base_model_id: str = Field(min_length=1, max_length=64, description="what to prune")
    recipe: Recipe = Field(description="what the variants have in common; what varies may be left out")
    vary: dict[RecipePath, Annotated[list[JsonValue], Field(min_length=1, max_length=MOST)]] = Field(
        min_length=1, max_length=8, description="field of the recipe → its values"
    )
    publish: SweepPublish
    priority: Priority = 0
    labels: Labels = {}

    @model_validator(mode="before")
    @classmethod
    def _needs_no_value_of_what_varies(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "recipe" not in given:
            return given
        return given | {"recipe": with_what_varies(given.get("recipe"), given.get("vary"))}

    @property
    def digest(self) -> str:
        """sha256 over what the request means: defaults written out, keys sorted but for those of `vary`."""
        told = self.model_dump(mode="json") | {"vary": [[path, values] for path, values in self.vary.items()]}
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def requests(self, varied: Sequence[Variation]) -> list[VariantRequest]:
        """What each variant would be asked for by itself. Raises RequestFault for names that are not one for each."""
        return [
            VariantRequest(
                base_model_id=self.base_model_id,
                recipe=variation.recipe,
                publish=PublishRequest(repo_id=repo_id, private=self.publish.private),
                priority=self.priority,
                labels=self.labels,
            )
            for variation, repo_id in zip(varied, self._repositories(varied), strict=True)
        ]

    def _repositories(self, varied: Sequence[Variation]) -> list[str]:
        asked = self.publish.repo_id
        if isinstance(asked, str):
            names = [_named(asked, number, variation) for number, variation in enumerate(varied, 1)]
        else:
            names = asked
        if len(names) != len(varied):
            raise RequestFault(
                f"there are {len(names)} repositories for {len(varied)} variants.", field="publish.repo_id"
            )
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            way_out = f"Put what differs into the name: {', '.join(_places(1, varied[0]))}."
            raise RequestFault(
                f"several variants would be published to {twice[0]}.", field="publish.repo_id", way_out=way_out
            )
        return names


def _places(number: int, variation: Variation) -> dict[str, JsonValue]:
    """What may stand in a name, in braces: paths, their last words where that is clear, the variant's number."""
    values = variation.values
    words = Counter(path.rpartition(".")[2] for path in values)
    short = {word: value for path, value in values.items() if words[word := path.rpartition(".")[2]] == 1}
    return {f"{{{name}}}": value for name, value in {"n": number, **short, **values}.items()}


def _named(template: str, number: int, variation: Variation) -> str:
    places = _places(number, variation)

    def fill(place: re.Match[str]) -> str:
        if place[0] not in places:
            way_out = f"There are: {', '.join(places)}."
            raise RequestFault(f"nothing is called {place[0]} here.", field="publish.repo_id", way_out=way_out)
        value = places[place[0]]
        if isinstance(value, dict | list):
            raise RequestFault(
                f"{place[0]} is no single value that a name could hold.", field="publish.repo_id", way_out="Use {n}."
            )
        return value if isinstance(value, str) else "none" if value is None else json.dumps(value)

    return _PLACE.sub(fill, template)


class SweepVariant(BaseModel):
    """One of a sweep's variants; what is measured is null until it is published."""

    id: str = Field(description="the variant's")
    values: dict[str, JsonValue] = Field(description="field of the recipe → what it is in this variant")
    repo_id: str = Field(description="where it is published, or will be")
    job_id: str | None = Field(description="null: it was deleted")
    state: JobState | None = Field(description="its job's")
    failure: FailureAnswer | None
    publication: Publication | None
    reduction: float | None = Field(description="how many times fewer parameters; null: its recipe cannot be read")
    bytes_reduction: float | None = Field(description="how many times smaller the weight files are")
    verdict: Verdict | None = Field(description="the certificate's; null without a probe, too")
    gain: float | None = Field(
        description="base model's perplexity over the one with a recovered adapter; above 1 is better"
    )
    gain_retained: float | None = Field(description="share of a direct LoRA's gain; null without one, too")

    @classmethod
    def of(cls, row: tables.Variant, paths: Sequence[str]) -> Self:
        job = row.jobs[-1] if row.jobs else None
        return cls.model_validate(
            {
                "id": row.id,
                "values": {path: value_at(row.recipe, path) for path in paths},
                "repo_id": row.publish_repo_id,
                "job_id": job and job.id,
                "state": job and job.state,
                "failure": job and job.failure,
                "publication": row.publication,
                "reduction": _reduction(row),
                **_measured(row),
            }
        )


def _reduction(row: tables.Variant) -> float | None:
    recipe = recipe_of(row)
    if not isinstance(recipe, Recipe):
        return None
    facts = facts_of(row.base_model)
    return facts.parameters / pruned_parameters(facts.geometry, recipe.pruning)


def _measured(row: tables.Variant) -> Mapping[str, Any]:
    manifest = manifest_of(row)
    if not isinstance(manifest, Manifest):
        return dict.fromkeys(("bytes_reduction", "verdict", "gain", "gain_retained"))
    certificate = manifest.evaluation.certificate if manifest.evaluation else None
    return {
        "bytes_reduction": manifest.bytes.reduction,
        "verdict": certificate and certificate.verdict,
        "gain": certificate and certificate.gain,
        "gain_retained": certificate and certificate.gain_retained,
    }


class SweepSummary(BaseModel):
    """A sweep and how far it is."""

    id: str = Field(description="the sweep's")
    base_model_id: str = Field(description="what is pruned")
    vary: dict[str, list[JsonValue]] = Field(description="field of the recipe → its values")
    labels: dict[str, str] = Field(description="given to its variants")
    states: dict[JobState, int] = Field(description="how many of its jobs are in each state")
    created_at: float = Field(description="seconds since 1970")

    @classmethod
    def of(cls, row: tables.Sweep, states: Mapping[JobState, int]) -> Self:
        own = {"id": row.id, "states": dict(states), "created_at": row.created_at}
        return cls.model_validate(row.request | own, extra="ignore")


class SweepAnswer(SweepSummary):
    """With its variants, in the order of their values."""

    recipe: dict[str, Any] = Field(description="as it was asked for")
    publish: SweepPublish
    variants: list[SweepVariant] = Field(description="those that were not deleted")

    @classmethod
    def whole(cls, row: tables.Sweep, variants: Sequence[tables.Variant]) -> Self:
        """`variants`: with their jobs and base models loaded."""
        found = [SweepVariant.of(variant, list(row.request["vary"])) for variant in variants]
        own = {
            "id": row.id,
            "states": Counter(variant.state for variant in found if variant.state is not None),
            "created_at": row.created_at,
            "variants": found,
        }
        return cls.model_validate(row.request | own)
