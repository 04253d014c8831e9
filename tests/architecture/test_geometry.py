"""Counts against the paper's tables, which are the oracle."""

import pytest

from publisher.architecture.widths import pruned_widths
from publisher.errors import RequestFault, UnsupportedModel
from publisher.families.describe import describe
from publisher.recipe import Pruning

LLAMA_2_13B = {
    "model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
    "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32000,
}  # fmt: skip
LLAMA_2_70B = LLAMA_2_13B | {
    "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip


def pruning(ratio: float, first: int = 4, last: int = 2) -> Pruning:
    return Pruning(criterion="random", ratio=ratio, protect_first=first, protect_last=last)


@pytest.mark.parametrize(
    ("config", "ratio", "base", "pruned"),
    [
        (LLAMA_2_13B, 0.65, 13_015_864_320, 6_005_662_720),
        (LLAMA_2_70B, 0.85, 68_976_648_192, 16_272_924_672),
    ],
)
def test_counts_are_those_of_the_paper(config: dict, ratio: float, base: int, pruned: int) -> None:
    geometry = describe(config)
    assert geometry.parameters() == base
    assert geometry.parameters(pruned_widths(geometry, pruning(ratio))) == pruned


def test_more_protected_layers_than_layers_are_refused() -> None:
    geometry = describe(LLAMA_2_13B)
    with pytest.raises(RequestFault, match="leave none of the 40 decoder layers"):
        pruned_widths(geometry, pruning(0.5, 30, 10))


def test_a_ratio_that_leaves_no_neuron_is_refused() -> None:
    geometry = describe(LLAMA_2_13B | {"intermediate_size": 4})
    with pytest.raises(RequestFault, match="leaves no neuron"):
        pruned_widths(geometry, pruning(0.8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "family 'gpt2' is not supported"),
        ({"auto_map": {"AutoModelForCausalLM": "x.Y"}}, "remote code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "already quantized"),
        ({"num_key_value_heads": 7}, "do not form groups"),
        ({"hidden_size": "wide"}, "hidden_size = 'wide'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "only LlamaForCausalLM"),
    ],
)
def test_configs_that_cannot_be_pruned_are_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        describe(LLAMA_2_13B | change)
