"""docs/recipes.md: every field of a recipe, from its pydantic models, and what goes together, asked of them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from publisher.recipe import Criterion, PruningMethod
from publisher.recipe.alignment import Alignment
from publisher.recipe.evaluation import Evaluation, ProbeBudget
from publisher.recipe.parts import WeightedCorpus
from publisher.recipe.pruning import Calibration, Pruning
from publisher.recipe.quantization import Quantization
from publisher.recipe.recipe import Recipe
from publisher.reference.fields import rows
from publisher.reference.markdown import page, table

#: in the order in which a recipe names them
PARTS: tuple[type[BaseModel], ...] = (
    Recipe, Pruning, Calibration, Alignment, Quantization, Evaluation, ProbeBudget, WeightedCorpus,
)  # fmt: skip

_INTRODUCTION = """
A recipe is the data that fully says how a variant is made: JSON, sent to the service with a base model, or read from a
file by `publisher build` and `publisher plan`. Unknown fields, values out of range and what does not go together are
refused by name before any work. This is a whole one; all else has defaults:

```json
{"pruning": {"ratio": 0.5, "calibration": {"corpus": "classics"}}}
```

How to choose: [pruning](pruning.md), [alignment](alignment.md), [certificate](certificate.md). The recipe digest is the
sha256 of the recipe with its defaults written out.
"""


def recipes_page() -> str:
    parts = [part(model) for model in PARTS]
    return page("Recipe reference", _INTRODUCTION, *parts, _criteria())


def part(model: type[BaseModel]) -> str:
    """A section with what the model says of itself and its fields."""
    lines = [[f"`{row.name}`", row.type, row.range, row.default, row.description] for row in rows(model)]
    described = " ".join((model.__doc__ or "").split())
    head = f"## {model.__name__}\n\n{described}".strip()
    return f"{head}\n\n{table(['field', 'type', 'range', 'default', 'what it is'], lines)}"


def _criteria() -> str:
    lines = [[f"`{method}`", *(_verdict(method, criterion) for criterion in Criterion)] for method in PruningMethod]
    head = "## Which criterion goes with which method"
    return f"{head}\n\n{table(['method', *(f'`{criterion}`' for criterion in Criterion)], lines)}"


def _verdict(method: PruningMethod, criterion: Criterion) -> str:
    """A dash where they do not go together."""
    needs: Mapping[str, Mapping[str, object]] = {"without text": {}, "reads text": {"calibration": {"corpus": "text"}}}
    return next((words for words, text in needs.items() if _is_valid(method, criterion, text)), "–")


def _is_valid(method: PruningMethod, criterion: Criterion, text: Mapping[str, object]) -> bool:
    try:
        Pruning.model_validate({"method": method, "criterion": criterion, "ratio": 0.5, **text})
    except ValidationError:
        return False
    return True
