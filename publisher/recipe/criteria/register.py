"""Every pruning criterion by its name."""

from __future__ import annotations

from functools import cache

from publisher.recipe.criteria.spec import Criterion, CriterionSpec, PruningMethod
from publisher.recipe.declared import declaration


@cache
def criterion_spec(criterion: Criterion) -> CriterionSpec:
    """Raises NotDeclared naming the file that is missing."""
    return declaration("publisher.recipe.criteria", criterion, CriterionSpec)


def criteria_for(method: PruningMethod, *, reading_text: bool = True) -> list[CriterionSpec]:
    """Those that a method can be asked with, in the enum's order; or of them those that need no text."""
    declared = map(criterion_spec, Criterion)
    return [spec for spec in declared if spec.serves(method) and (reading_text or not spec.reads_text)]
