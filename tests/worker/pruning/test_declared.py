"""What criteria declare is there to be run."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from publisher.families.describe import describe
from publisher.recipe import Criterion
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.criteria.spec import InputStatistic
from publisher.recipe.declared import NotDeclared
from tests.architecture.test_widths import LLAMA
from worker.pruning.importance import score_by_chance, score_by_wanda
from worker.pruning.scoring import ScoringWork
from worker.pruning.unstructured.statistics import statistic_of


@pytest.mark.parametrize("criterion", Criterion)
def test_what_a_criterion_names_takes_what_it_is_handed(criterion: Criterion) -> None:
    spec = criterion_spec(criterion)
    if spec.units is not None:
        signature(resolve_name(spec.units.score)).bind("work")
    if spec.weights is not None:
        signature(resolve_name(spec.weights.prune)).bind("weights", "inputs", "sparsity")


def test_a_criterion_gets_only_what_it_declares_to_depend_on(tmp_path: Path) -> None:
    """Otherwise scores made for one seed or text would be taken for another's."""
    geometry = describe(LLAMA)

    def work(criterion: Criterion) -> ScoringWork:
        spec, text = criterion_spec(criterion), torch.zeros(2, 8, dtype=torch.int64)
        return ScoringWork(spec, tmp_path, geometry, 7, "cpu", tmp_path, lambda: text, lambda done, total, unit: None)

    assert (work(Criterion.RANDOM).seed, work(Criterion.TAYLOR).seed) == (7, 7)
    assert work(Criterion.WANDA).read_text().shape == (2, 8)
    with pytest.raises(NotDeclared, match="criterion magnitude asks for the seed"):
        score_by_chance(work(Criterion.MAGNITUDE))
    with pytest.raises(NotDeclared, match="criterion random asks for text"):
        score_by_wanda(work(Criterion.RANDOM))


def test_every_statistic_of_inputs_is_another() -> None:
    assert len({statistic_of(what) for what in InputStatistic}) == len(InputStatistic)
