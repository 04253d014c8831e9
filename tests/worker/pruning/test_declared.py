"""What criteria declare is there to be run."""

from __future__ import annotations

from inspect import signature
from pkgutil import resolve_name

import pytest

from publisher.recipe import Criterion
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.criteria.spec import InputStatistic
from worker.pruning.unstructured.statistics import statistic_of


@pytest.mark.parametrize("criterion", Criterion)
def test_what_a_criterion_names_takes_what_it_is_handed(criterion: Criterion) -> None:
    spec = criterion_spec(criterion)
    if spec.units is not None:
        signature(resolve_name(spec.units.score)).bind("work")
    if spec.weights is not None:
        signature(resolve_name(spec.weights.prune)).bind("weights", "inputs", "sparsity")


def test_every_statistic_of_inputs_is_another() -> None:
    assert len({statistic_of(what) for what in InputStatistic}) == len(InputStatistic)
