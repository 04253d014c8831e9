from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from publisher.recipe import Pruning
from tests.devices import each_device
from tests.worker.pruning.unstructured.layers import correlated_inputs, hessian_of, matrix
from worker.pruning.unstructured.criteria import by_magnitude, by_wanda
from worker.pruning.unstructured.sparsegpt import by_sparsegpt
from worker.pruning.unstructured.sparsity import Pruned, SemiStructured, Sparsity, Unstructured, sparsity_of

Criterion = Callable[[Tensor, Tensor, Sparsity], Pruned]


def magnitude(weight: Tensor, inputs: Tensor, sparsity: Sparsity) -> Pruned:
    return by_magnitude(weight, sparsity)


def wanda(weight: Tensor, inputs: Tensor, sparsity: Sparsity) -> Pruned:
    return by_wanda(weight, inputs.square().sum(dim=0), sparsity)


def sparsegpt(weight: Tensor, inputs: Tensor, sparsity: Sparsity) -> Pruned:
    return by_sparsegpt([weight], hessian_of(inputs).to(torch.float32), sparsity)[0]


CRITERIA = pytest.mark.parametrize("criterion", [magnitude, wanda, sparsegpt])
PATTERNS = pytest.mark.parametrize("pattern", [SemiStructured(2, 4), SemiStructured(4, 8)])


@each_device
@CRITERIA
@pytest.mark.parametrize("ratio", [0.01, 0.29, 0.5, 0.58, 0.9])
def test_every_criterion_keeps_the_count_of_the_plan(criterion: Criterion, ratio: float, device: str) -> None:
    weight = matrix(7, 200, dtype=torch.bfloat16).to(device)
    pruned = criterion(weight, correlated_inputs(400, 200).to(device), Unstructured(ratio))
    assert int(pruned.kept.sum()) == 7 * (200 - int(200 * ratio))
    assert pruned.weight.dtype == torch.bfloat16
    assert (pruned.weight[~pruned.kept] == 0).all()
    assert not pruned.weight[~pruned.kept].signbit().any()


@each_device
@pytest.mark.parametrize("sparsity", [Unstructured(0.5), SemiStructured(2, 4)])
@pytest.mark.parametrize("criterion", [magnitude, wanda])
def test_of_equal_scores_the_same_stay_on_every_device(criterion: Criterion, sparsity: Sparsity, device: str) -> None:
    """Weights of a few values only, as those in bf16 nearly are; inputs of one size, so that scores are equal, too."""
    weight, inputs = (matrix(33, 136) * 2).round() / 2, torch.ones(16, 136, dtype=torch.float64)
    found = criterion(weight.to(device), inputs.to(device), sparsity)
    assert torch.equal(found.kept.cpu(), criterion(weight, inputs, sparsity).kept)


@CRITERIA
@PATTERNS
def test_every_group_of_neighbours_keeps_n_of_m(criterion: Criterion, pattern: SemiStructured) -> None:
    pruned = criterion(matrix(5, 200), correlated_inputs(400, 200), pattern)
    assert (pruned.kept.view(5, -1, pattern.of).sum(dim=2) == pattern.kept).all()


@CRITERIA
@pytest.mark.parametrize("sparsity", [Unstructured(0.5), SemiStructured(2, 4)])
def test_the_same_input_gives_the_same_bytes(criterion: Criterion, sparsity: Sparsity) -> None:
    weight, inputs = matrix(33, 136, dtype=torch.bfloat16), correlated_inputs(300, 136)
    first, second = (criterion(weight, inputs, sparsity) for _ in range(2))
    assert torch.equal(first.weight.view(torch.int16), second.weight.view(torch.int16))
    assert torch.equal(first.kept, second.kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("criterion", [magnitude, wanda])
def test_weights_that_stay_keep_their_values(criterion: Criterion, dtype: torch.dtype) -> None:
    weight = matrix(9, 40, dtype=dtype)
    pruned = criterion(weight.clone(), correlated_inputs(100, 40), Unstructured(0.4))
    assert torch.equal(pruned.weight[pruned.kept], weight[pruned.kept])


@CRITERIA
def test_the_matrix_that_was_handed_in_stays_as_it_is(criterion: Criterion) -> None:
    weight = matrix(9, 40, dtype=torch.float32)
    criterion(weight, correlated_inputs(100, 40), Unstructured(0.4))
    assert torch.equal(weight, matrix(9, 40, dtype=torch.float32))


def test_wanda_removes_the_weight_whose_product_with_its_input_is_smallest() -> None:
    weight = torch.tensor([[1.0, -3.0, 2.0], [4.0, 1.0, -1.0]])
    inputs = torch.tensor([[3.0, 0.0, 0.0], [4.0, 1.0, 2.0]])  # norms 5, 1, 2 → [5, 3, 4] and [20, 1, 2]
    kept = wanda(weight, inputs, Unstructured(0.34)).kept
    assert kept.tolist() == [[True, False, True], [True, False, True]]


def test_magnitude_compares_the_whole_matrix() -> None:
    weight = torch.tensor([[0.1, 0.2], [-5.0, 4.0]])
    assert by_magnitude(weight, Unstructured(0.5)).kept.tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("sparsity", [Unstructured(0.5), SemiStructured(2, 4), SemiStructured(4, 8)])
def test_the_layer_is_changed_least_by_sparsegpt_and_most_by_magnitude(sparsity: Sparsity) -> None:
    weight, inputs = matrix(96, 256), correlated_inputs(2000, 256)
    error = {
        criterion.__name__: float((inputs @ (weight - criterion(weight, inputs, sparsity).weight).T).norm())
        for criterion in (magnitude, wanda, sparsegpt)
    }
    assert error["sparsegpt"] < 0.9 * error["wanda"] < 0.9 * error["magnitude"]


def test_the_recipe_names_the_sparsity() -> None:
    def pruning(**fields: object) -> Pruning:
        return Pruning.model_validate({"criterion": "magnitude"} | fields)

    assert sparsity_of(pruning(method="unstructured", ratio=0.6)) == Unstructured(0.6)
    assert sparsity_of(pruning(method="semi_structured", pattern="4:8")) == SemiStructured(4, 8)
