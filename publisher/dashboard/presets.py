"""Recipes to begin with, for a base model and the text that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from publisher.api.corpora_schema import facts_of
from publisher.architecture.geometry import Geometry
from publisher.base_model.facts import BaseModelFacts
from publisher.corpus.facts import CorpusFacts
from publisher.errors import RequestFault
from publisher.files.amounts import size
from publisher.plan.plan import GIB, certificate_notes, make_plan
from publisher.recipe import Alignment, Calibration, Recipe
from publisher.store.resources import corpora_by_name, corpus_names

#: fewer than that would have too few left beside those that are protected by default
_LAYERS_ENOUGH = 12
#: at most so many corpora are read by a preset
_MOST_CORPORA = 4
#: bytes of text that a token is counted with, where none was tokenized yet: English has about four
_BYTES_PER_TOKEN = 5
#: of the paper's two ratios, the larger is for models of so many parameters
_LARGE, _PAPER_RATIO, _PAPER_RATIO_LARGE = 40e9, 0.65, 0.85
#: the paper's: 128 sequences of 512 tokens a step, a rate of 5e-5 after 100 steps of warm-up, FineWeb and OpenWebMath
_PAPER_SEQUENCE, _PAPER_BATCH, _PAPER_RATE, _PAPER_WARMUP = 512, 128, 5e-5, 100
_PAPER_STEPS = 1600
_PAPER_TEXTS = ("fineweb", "openwebmath", "open-web-math", "math")
#: what is looked at for a card, in this order
_RATIOS = [round(0.05 * step, 2) for step in range(4, 20)]
_SCHEMES: Sequence[Mapping[str, Any]] = ({}, {"include_embeddings": True})


@dataclass(frozen=True)
class Text:
    """A corpus that recipes may name; `facts` None for a dataset, which nobody has counted."""

    name: str
    facts: CorpusFacts | None

    @property
    def tokens(self) -> int | None:
        """That may be trained on, rather too few."""
        return None if self.facts is None else self.facts.train_bytes // _BYTES_PER_TOKEN


@dataclass(frozen=True)
class Ground:
    """What a preset stands on: the base model, and the tenant's text."""

    base: BaseModelFacts
    texts: Sequence[Text]

    @classmethod
    def of(cls, session: Session, tenant_id: str, base: BaseModelFacts) -> Ground:
        rows = corpora_by_name(session, tenant_id, corpus_names(session, tenant_id))
        texts = [Text(name, facts_of(row)) for name, row in sorted(rows.items())]
        return cls(base, texts if base.has_tokenizer else [])

    def tokens(self, texts: Sequence[Text]) -> int | None:
        """Of corpora that are mixed evenly: the smallest one ends it. None: nobody knows."""
        known = [text.tokens for text in texts if text.tokens is not None]
        return min(known) * len(texts) if known else None


def starting(ground: Ground) -> dict[str, Any]:
    """The shortest way to a checkpoint: half of the layers' weights go, by what a corpus says or by magnitude."""
    texts = ground.texts[:1]
    if not texts:
        return {"pruning": {"criterion": "magnitude", "ratio": 0.5, **_protected(ground.base.geometry)}}
    return {"pruning": {"ratio": 0.5, **_protected(ground.base.geometry), **_calibration(ground, texts, 32)}}


def best_carry_over(ground: Ground, ratio: float = 0.4) -> dict[str, Any]:
    """The defaults, which were chosen by what adapters gain on the base model, with all the text that there is."""
    texts = ground.texts[:_MOST_CORPORA]
    if not texts:
        return starting(ground) | {"pruning": starting(ground)["pruning"] | {"ratio": ratio}}
    recipe = {"pruning": {"ratio": ratio, **_protected(ground.base.geometry), **_calibration(ground, texts, 64)}}
    return recipe | _aligned(ground, texts, {}) | _evaluated(recipe, texts)


def of_the_paper(ground: Ground) -> dict[str, Any]:
    """LoRAM-Stru, in 4 bits: the same share of each layer, and next-token prediction on general text."""
    ratio = _PAPER_RATIO_LARGE if ground.base.parameters > _LARGE else _PAPER_RATIO
    general = [text for text in ground.texts if any(word in text.name.lower() for word in _PAPER_TEXTS)]
    texts = (general or ground.texts)[:2]
    pruning = {"ratio": ratio, "scope": "uniform", **_protected(ground.base.geometry)}
    if not texts:
        return {"pruning": {"criterion": "magnitude", **pruning}}
    recipe = {"pruning": pruning | _calibration(ground, texts, 32)}
    alignment = {
        "sequence_length": _PAPER_SEQUENCE,
        "batch_tokens": _PAPER_SEQUENCE * _PAPER_BATCH,
        "tokens": _PAPER_STEPS * _PAPER_SEQUENCE * _PAPER_BATCH,
        "objective": "language_model",
        "reconstruction_tokens": 0,
        "learning_rate": _PAPER_RATE,
        "warmup_fraction": round(_PAPER_WARMUP / _PAPER_STEPS, 4),
    }
    return recipe | _aligned(ground, texts, alignment) | _evaluated(recipe, texts)


def fits_a_card(ground: Ground, gib: float) -> dict[str, Any]:
    """Prunes as little as has to be for LoRA to be trained on a card of `gib` GiB, in 4 bits; with embeddings in 4 bits
    where that is not enough. RequestFault where nothing of that fits.
    """
    least = 0
    for scheme in _SCHEMES:
        for ratio in _RATIOS:
            recipe = best_carry_over(ground, ratio) | ({"quantization": dict(scheme)} if scheme else {})
            taken = _memory(ground, recipe)
            if taken is not None and taken <= gib * GIB:
                return recipe
            least = min(least or taken, taken) if taken is not None else least
    raise RequestFault(
        f"no ratio up to {_RATIOS[-1]} makes it fit: LoRA takes {size(least)} at least.",
        field="gib",
        way_out="Name a larger card, or choose a smaller base model.",
    )


def _memory(ground: Ground, recipe: dict[str, Any]) -> int | None:
    """To train LoRA; None where such a recipe leaves nothing of a layer."""
    try:
        return make_plan(
            ground.base.geometry, Recipe.model_validate(recipe), base_bytes=ground.base.bytes, flops_per_second=1.0
        ).memory.train_lora
    except RequestFault:
        return None


def _protected(geometry: Geometry) -> dict[str, int]:
    """The defaults, or less of a model of few layers."""
    if geometry.layers >= _LAYERS_ENOUGH:
        return {}
    return {"protect_first": geometry.layers // 4, "protect_last": geometry.layers // 6}


def _calibration(ground: Ground, texts: Sequence[Text], samples: int) -> dict[str, Any]:
    length = Calibration.model_fields["sequence_length"].default
    tokens = ground.tokens(texts)
    fitting = samples if tokens is None else max(len(texts), min(samples, tokens // length))
    default = Calibration.model_fields["samples"].default
    named: dict[str, Any] = {"corpora": [text.name for text in texts]}
    return {"calibration": named | ({} if fitting == default else {"samples": fitting})}


def _aligned(ground: Ground, texts: Sequence[Text], asked: Mapping[str, Any]) -> dict[str, Any]:
    """As much text as is there, in whole batches; nothing where that is not one batch."""
    defaults = {name: field.default for name, field in Alignment.model_fields.items()}
    batch, wanted = ({**defaults, **asked}[name] for name in ("batch_tokens", "tokens"))
    tokens = ground.tokens(texts)
    if tokens is None or tokens >= wanted:
        return {"alignment": {"corpora": [text.name for text in texts], **asked}}
    batch = min(batch, defaults["batch_tokens"]) if tokens < batch else batch
    if tokens < batch:
        return {}
    fitting = {"tokens": tokens // batch * batch, **({"batch_tokens": batch} if "batch_tokens" in asked else {})}
    return {"alignment": {"corpora": [text.name for text in texts], **asked, **fitting}}


def _evaluated(recipe: dict[str, Any], texts: Sequence[Text]) -> dict[str, Any]:
    """On all that something is held out of; with a certificate that has to pass where that can be told."""
    measured = [text for text in texts if text.facts is None or text.facts.held_out_documents]
    if not measured:
        return {}
    evaluation: dict[str, Any] = {"corpora": [text.name for text in measured]}
    first = measured[0]
    if first.facts is not None and certificate_notes(
        Recipe.model_validate(recipe | {"evaluation": evaluation}), first.name, first.facts.held_out_documents
    ):
        evaluation["require_certificate"] = "unless_failed"
    return {"evaluation": evaluation}
