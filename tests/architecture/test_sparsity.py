"""Kept weights against the count by hand, and against a mask drawn out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher.architecture.sparsity import kept_weights, prunable_matrices, pruned_parameters, sparse_matrices
from publisher.errors import RequestFault, UnsupportedModel
from publisher.families.describe import describe
from publisher.recipe import Pruning
from tests.architecture.test_geometry import LLAMA_2_13B
from tests.architecture.test_widths import LLAMA, MIXTURE


def pruning(**fields: Any) -> Pruning:
    plain = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.5, "protect_first": 0, "protect_last": 0}
    return Pruning.model_validate(plain | fields)


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_patterns_leave_half_of_every_linear_weight(pattern: str) -> None:
    """LLaMA-2-13B, all 40 layers: 40 x (4 x 5120² + 3 x 5120 x 13824) / 2 = 6,343,884,800 of 13,015,864,320 go."""
    semi = pruning(method="semi_structured", pattern=pattern)
    assert pruned_parameters(describe(LLAMA_2_13B), semi) == 6_671_979_520


def test_protected_layers_keep_all_weights() -> None:
    geometry, layer = describe(LLAMA_2_13B), 4 * 5120**2 + 3 * 5120 * 13824
    fewer = pruned_parameters(geometry, pruning(protect_first=4, protect_last=2))
    assert fewer == pruned_parameters(geometry, pruning()) + 6 * layer // 2


@given(st.integers(1, 40), st.integers(2, 300), st.floats(0.01, 0.99))
def test_every_row_keeps_the_same_number(rows: int, columns: int, ratio: float) -> None:
    assert kept_weights((rows, columns), ratio) == rows * (columns - int(columns * ratio))


def test_projections_and_experts_are_pruned_and_routers_and_norms_are_not() -> None:
    dense, mixture = describe(MIXTURE).kind(1), describe(MIXTURE).kind(2)
    assert set(prunable_matrices(dense)) == {
        *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
        *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    }
    assert {name for name in prunable_matrices(mixture) if "mlp" in name} == {
        f"mlp.experts.{expert}.{name}_proj.weight" for expert in range(8) for name in ("gate", "up", "down")
    }


def test_rows_that_a_pattern_does_not_divide_are_refused_by_name() -> None:
    geometry = describe(LLAMA | {"intermediate_size": 50})
    with pytest.raises(UnsupportedModel, match=r"mlp\.down_proj.weight has rows of 50 weights, .* no multiple of 4"):
        pruned_parameters(geometry, pruning(method="semi_structured"))


def test_a_ratio_that_removes_no_weight_is_refused() -> None:
    with pytest.raises(RequestFault, match=r"ratio 0\.01 removes none of the 32 weights in a row"):
        sparse_matrices(describe(LLAMA), pruning(ratio=0.01))
