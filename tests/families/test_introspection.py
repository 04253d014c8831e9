"""What transformers' families are made of, against what their modelling code says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from publisher.architecture.structure import Part, Unit
from publisher.errors import UnsupportedModel
from publisher.families.describe import describe
from publisher.families.introspection import geometry_of

HEADS, NEURONS, EXPERTS = Unit.KV_HEADS, Unit.NEURONS, Unit.EXPERTS


def config(family: str, **changes: Any) -> dict[str, Any]:
    """3 layers, hidden size 32, 4 query heads on 2 KV heads of 8, 48 neurons."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    return {"model_type": family} | sizes | heads | changes


def parts(family: str, **changes: Any) -> dict[str, tuple[int, list[tuple[Unit, int, int]]]]:
    kind = geometry_of(config(family, **changes)).kinds[0]
    return {
        name: (spec.axis, [(part.unit, part.offset, part.span) for part in spec.parts])
        for name, spec in kind.tensors.items()
        if spec.parts
    }


def test_projections_are_cut_in_rows_and_the_last_in_columns() -> None:
    assert parts("llama") == {
        "self_attn.q_proj.weight": (0, [(HEADS, 0, 16)]),
        "self_attn.k_proj.weight": (0, [(HEADS, 0, 8)]),
        "self_attn.v_proj.weight": (0, [(HEADS, 0, 8)]),
        "self_attn.o_proj.weight": (1, [(HEADS, 0, 16)]),
        "mlp.gate_proj.weight": (0, [(NEURONS, 0, 1)]),
        "mlp.up_proj.weight": (0, [(NEURONS, 0, 1)]),
        "mlp.down_proj.weight": (1, [(NEURONS, 0, 1)]),
    }


def test_packed_projections_are_cut_in_each_of_their_parts() -> None:
    packed = parts("phi3")
    assert packed["self_attn.qkv_proj.weight"] == (0, [(HEADS, 0, 16), (HEADS, 32, 8), (HEADS, 48, 8)])
    assert packed["mlp.gate_up_proj.weight"] == (0, [(NEURONS, 0, 1), (NEURONS, 48, 1)])


def test_biases_go_with_rows_and_stay_where_columns_go() -> None:
    found = parts("starcoder2")
    assert found["self_attn.q_proj.bias"] == (0, [(HEADS, 0, 16)])
    assert "self_attn.o_proj.bias" not in found


def test_norms_over_all_heads_are_cut_and_norms_of_one_head_are_not() -> None:
    assert parts("olmo2")["self_attn.q_norm.weight"] == (0, [(HEADS, 0, 16)])
    assert "self_attn.q_norm.weight" not in parts("qwen3")


def test_experts_are_whole_tensors_in_files_and_fused_in_modules() -> None:
    kind = geometry_of(config("mixtral", num_local_experts=4)).kinds[0]
    assert kind.units == {HEADS: 2, EXPERTS: 4}
    assert {spec.expert for name, spec in kind.tensors.items() if ".experts." in name} == {0, 1, 2, 3}
    assert kind.tensors["block_sparse_moe.gate.weight"].parts == (Part(EXPERTS, 0, 1),)
    assert kind.parameters["mlp.experts.gate_up_proj"].parts == (Part(EXPERTS, 0, 1),)


def test_dense_layers_among_experts_are_a_kind_of_their_own() -> None:
    geometry = geometry_of(
        config("qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=12, mlp_only_layers=[1])
    )
    assert [geometry.kind(layer).units for layer in range(3)] == [
        {HEADS: 2, EXPERTS: 4}, {HEADS: 2, NEURONS: 48}, {HEADS: 2, EXPERTS: 4},
    ]  # fmt: skip


def test_units_that_a_config_cannot_count_stay_whole() -> None:
    geometry = geometry_of(config("olmoe", num_experts=4, num_experts_per_tok=2, num_key_value_heads=4))
    assert geometry.kinds[0].units == {EXPERTS: 4}
    assert "self_attn.k_norm.weight" in geometry.whole[HEADS]


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "llama3", "longrope"])
def test_rotary_embeddings_of_any_kind_have_heads_to_remove(kind: str) -> None:
    factors = {"long_factor": [1.0] * 4, "short_factor": [1.0] * 4, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope = {"rope_type": kind, "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 32} | factors
    geometry = geometry_of(config("llama", rope_parameters=rope, max_position_embeddings=64))
    assert geometry.kinds[0].units == {HEADS: 2, NEURONS: 48}


def test_infinite_numbers_are_read_as_transformers_writes_them() -> None:
    limit = {"time_step_limit": [0.0, {"__float__": "Infinity"}], "layer_types": ["attention"] * 3}
    mixture = {"num_local_experts": 4, "num_experts_per_tok": 2, "mamba_n_heads": 4, "mamba_d_head": 16}
    assert geometry_of(config("granitemoehybrid", **limit, **mixture)).kinds[0].units == {HEADS: 2, EXPERTS: 4}


def test_a_single_kv_head_stays() -> None:
    assert geometry_of(config("gemma", num_key_value_heads=1)).kinds[0].units == {NEURONS: 48}


def test_tied_heads_are_no_tensor_of_their_own() -> None:
    assert "lm_head.weight" not in geometry_of(config("qwen2", tie_word_embeddings=True)).outside
    assert "lm_head.weight" in geometry_of(config("qwen2", tie_word_embeddings=False)).outside


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert-of-ours"}, "no causal language model of that name"),
        ({"model_type": "gpt2", "n_head": 4}, "does not say which of its matrices"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "only LlamaForCausalLM"),
        ({"num_key_value_heads": 3}, "do not form groups"),
        ({"pad_token_id": 900}, "cannot build the model"),
        ({"attention_bias": "much"}, "transformers refuses config.json: .*attention_bias"),
        ({"per_layer_config": {"0": {"intermediate_size": 24}}}, "its layers differ in width as they are"),
    ],
)
def test_what_cannot_be_pruned_is_refused_with_the_reason(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        geometry_of(config("llama") | change)


def test_a_process_without_torch_gets_the_same_from_another_one() -> None:
    asked = (
        "import sys, json; from dataclasses import asdict; from publisher.families.describe import describe\n"
        "geometry = describe(json.load(sys.stdin)); assert 'torch' not in sys.modules\n"
        "print(json.dumps(asdict(geometry)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", asked], input=json.dumps(config("mixtral")), capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == json.loads(json.dumps(asdict(describe(config("mixtral")))))


def test_a_refusal_crosses_the_process_border() -> None:
    asked = (
        "import sys, json; from publisher.families.describe import describe\n"
        "from publisher.errors import UnsupportedModel\n"
        "try: describe(json.load(sys.stdin))\n"
        "except UnsupportedModel as refusal: print(refusal.message)"
    )
    process = subprocess.run(
        [sys.executable, "-c", asked],
        input=json.dumps(config("llama", architectures=["LlamaForSequenceClassification"])),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "only LlamaForCausalLM" in process.stdout
