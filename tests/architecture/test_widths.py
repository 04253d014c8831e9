"""Widths against the paper's tables and against rules written out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.widths import pruned_widths, width_notes
from publisher.errors import RequestFault
from publisher.families.describe import describe
from publisher.recipe import Pruning
from tests.architecture.test_geometry import LLAMA_2_13B, LLAMA_2_70B
from tests.models import TINY

LLAMA_31_70B = LLAMA_2_70B | {"vocab_size": 128256}
LLAMA = TINY | {"model_type": "llama", "head_dim": 8}
MIXTURE = TINY | {
    "model_type": "qwen3_moe",
    "head_dim": 8,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "mlp_only_layers": [1],
    "decoder_sparse_step": 1,
}


def pruning(**fields: Any) -> Pruning:
    return Pruning.model_validate({"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1} | fields)


def inner(geometry: Geometry, **fields: Any) -> LayerWidths:
    """The one width of the layers that are not protected."""
    widths = set(pruned_widths(geometry, pruning(**fields))[1:-1])
    assert len(widths) == 1
    return widths.pop()


@pytest.mark.parametrize(
    ("config", "ratio", "base", "pruned"),
    [
        (LLAMA_2_13B, 0.65, 13_015_864_320, 6_005_662_720),
        (LLAMA_2_70B, 0.65, 68_976_648_192, 28_099_436_544),
        (LLAMA_2_70B, 0.75, 68_976_648_192, 21_488_738_304),
        (LLAMA_2_70B, 0.85, 68_976_648_192, 16_272_924_672),
        (LLAMA_2_70B, 0.95, 68_976_648_192, 9_662_226_432),
        (LLAMA_31_70B, 0.85, 70_553_706_496, 17_849_982_976),
    ],
)
def test_structured_counts_are_those_of_the_papers_tables_4_and_5(
    config: dict[str, Any], ratio: float, base: int, pruned: int
) -> None:
    geometry = describe(config)
    assert geometry.parameters() == base
    assert geometry.parameters(pruned_widths(geometry, Pruning(criterion="random", ratio=ratio))) == pruned


def test_masks_of_weights_keep_every_shape() -> None:
    geometry = describe(LLAMA)
    assert pruned_widths(geometry, pruning(method="unstructured", criterion="magnitude")) == geometry.full_widths


def test_layers_are_pruned_by_their_kind() -> None:
    """The second layer has a dense MLP, the third experts: half of each, and all of what it has not."""
    widths = pruned_widths(describe(MIXTURE), pruning())
    assert widths[1] == LayerWidths(query_heads=2, kv_heads=1, neurons=24, experts=0)
    assert widths[2] == LayerWidths(query_heads=2, kv_heads=1, neurons=0, experts=4)
    assert widths[0] == widths[3] == LayerWidths(query_heads=4, kv_heads=2, neurons=0, experts=8)


def test_as_many_experts_stay_as_work_on_a_token() -> None:
    geometry = describe(MIXTURE)
    assert pruned_widths(geometry, pruning(ratio=0.9))[2].experts == 2
    assert any("2 experts, as many as work on one token" in note for note in width_notes(geometry, pruning(ratio=0.9)))


def test_neurons_are_rounded_up_to_a_multiple() -> None:
    geometry = describe(LLAMA)
    assert [inner(geometry, ratio=ratio, round_to=8).neurons for ratio in (0.3, 0.5, 0.6, 0.9)] == [40, 24, 24, 8]


def test_attention_channels_are_rounded_up_to_a_multiple() -> None:
    """Heads of 8 channels: multiples of 16 channels are pairs of KV heads, of 8 any number."""
    geometry = describe(LLAMA | {"num_attention_heads": 8, "num_key_value_heads": 8})
    assert inner(geometry, ratio=0.6).kv_heads == 4
    assert [inner(geometry, ratio=0.6, round_to=multiple).kv_heads for multiple in (8, 16, 32, 48)] == [4, 4, 4, 6]
    assert inner(geometry, ratio=0.8, round_to=16).kv_heads == 2


def test_rounding_that_leaves_everything_is_refused() -> None:
    with pytest.raises(
        RequestFault, match="round_to 64 rounds everything up to the full width of layers of 2 KV heads"
    ):
        pruned_widths(describe(LLAMA), pruning(ratio=0.5, round_to=64))


def test_a_full_width_that_is_no_multiple_is_kept_and_noted() -> None:
    geometry = describe(LLAMA | {"intermediate_size": 50, "num_attention_heads": 8, "num_key_value_heads": 8})
    capped = pruning(ratio=0.5, round_to=56)
    assert pruned_widths(geometry, capped)[1] == LayerWidths(7, 7, 50)
    assert any("keep all 50 neurons, which are no multiple of 56" in note for note in width_notes(geometry, capped))
    assert width_notes(geometry, pruning(ratio=0.5, round_to=8)) == []


def uniform(**fields: Any) -> Pruning:
    return pruning(protect_first=0, protect_last=0, layout="uniform", **fields)


@pytest.mark.parametrize(("ratio", "heads"), [(0.65, 16), (0.5, 20), (0.25, 32), (0.9, 4)])
def test_a_uniform_layout_has_heads_that_divide_the_hidden_size(ratio: float, heads: int) -> None:
    """LLaMA-2-13B, hidden size 5120: by the ratio alone 14, 20, 30 and 4 of 40 heads."""
    assert {width.kv_heads for width in pruned_widths(describe(LLAMA_2_13B), uniform(ratio=ratio))} == {heads}


def test_a_uniform_layout_that_would_keep_all_heads_is_refused_with_ratios_that_do() -> None:
    """36 heads do not divide 5120; 32 and 40 do and are as near, so that no head would go."""
    with pytest.raises(RequestFault, match=r"leave 36 of 40 KV heads.*Ratios that would do: 0\.2 \(32 KV heads\)"):
        pruned_widths(describe(LLAMA_2_13B), uniform(ratio=0.1))


def test_the_ratios_that_are_proposed_would_do() -> None:
    geometry = describe(LLAMA_2_13B)
    for count, ratio in ((32, 0.2), (20, 0.5), (16, 0.6), (10, 0.75), (8, 0.8), (5, 0.875), (4, 0.9), (2, 0.95)):
        assert pruned_widths(geometry, uniform(ratio=ratio))[0].kv_heads == count


def test_other_heads_than_asked_for_are_noted() -> None:
    notes = width_notes(describe(LLAMA_2_13B), uniform(ratio=0.65))
    assert any("16 KV heads instead of the 14" in note for note in notes)
    assert width_notes(describe(LLAMA_2_13B), uniform(ratio=0.5)) == []


def test_a_family_whose_own_heads_do_not_divide_the_hidden_size_is_not_asked_to() -> None:
    geometry = describe(LLAMA | {"model_type": "qwen3", "num_attention_heads": 6, "num_key_value_heads": 6})
    assert pruned_widths(geometry, uniform(ratio=0.2))[0].kv_heads == 5


def test_global_scope_is_planned_as_uniform_with_a_note() -> None:
    geometry = describe(LLAMA)
    assert pruned_widths(geometry, pruning(scope="global")) == pruned_widths(geometry, pruning())
    assert "layers will differ" in width_notes(geometry, pruning(scope="global"))[0]


def test_a_ratio_that_takes_nothing_is_refused() -> None:
    geometry = describe(MIXTURE | {"mlp_only_layers": [], "num_experts_per_tok": 8})
    with pytest.raises(RequestFault, match=r"ratio 0\.2 removes nothing from layers of 2 KV heads"):
        pruned_widths(geometry, pruning(ratio=0.2))
