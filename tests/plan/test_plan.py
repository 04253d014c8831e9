"""The plan against the paper's tables and against arithmetic done by hand."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from publisher.architecture.widths import pruned_widths
from publisher.families.describe import describe
from publisher.plan.minutes import EFFICIENCY
from publisher.plan.plan import make_plan
from publisher.plan.sizes import loaded_bytes, working_parameters
from publisher.recipe import Criterion, Pruning, Quantization, Recipe, Scheme
from tests.architecture.test_geometry import LLAMA_2_13B, LLAMA_2_70B
from tests.architecture.test_widths import LLAMA, MIXTURE
from tests.models import TINY
from worker.quantization.nf4 import quantize_nf4

LLAMA_31_70B = LLAMA_2_70B | {"vocab_size": 128256}
RECIPE = {"pruning": {"criterion": "random", "ratio": 0.85}, "alignment": {"corpora": [{"name": "general"}]}}


def plan_for(config: dict, recipe: dict):
    return make_plan(describe(config), Recipe.model_validate(recipe), flops_per_second=1e12)


def test_the_papers_reduction_is_reported_next_to_the_real_one() -> None:
    plan = plan_for(LLAMA_2_70B, RECIPE)
    assert plan.parameters.pruned == 16_272_924_672
    assert round(plan.reduction.parameters, 2) == 4.24
    assert round(plan.reduction.bytes_ideal, 2) == 16.95
    assert plan.reduction.bytes < plan.reduction.bytes_ideal


def test_real_nf4_of_a_70b_model_is_as_large_as_measured_files() -> None:
    """LLaMA-3.1-70B at 0.85: 15.81 × on paper, 11.4 × in NF4 files whose embeddings stay bf16."""
    plan = plan_for(LLAMA_31_70B, RECIPE)
    assert round(plan.reduction.bytes_ideal, 2) == 15.81
    assert plan.reduction.bytes == pytest.approx(11.4, abs=0.1)


def test_distillation_needs_memory_for_the_teacher() -> None:
    language_model = RECIPE | {"alignment": RECIPE["alignment"] | {"objective": "language_model"}}
    distillation = RECIPE | {"alignment": RECIPE["alignment"] | {"gradient_matching": 0}}
    distilled, alone = plan_for(LLAMA_2_13B, distillation), plan_for(LLAMA_2_13B, language_model)
    assert distilled.memory.align - alone.memory.align == 2 * 13_015_864_320


def test_no_alignment_costs_nothing() -> None:
    plan = plan_for(LLAMA_2_13B, RECIPE | {"alignment": None})
    assert plan.memory.align is None
    assert "align" not in plan.minutes
    assert plan.align_gpus_80gib is None


def test_training_on_the_checkpoint_needs_less_than_on_the_base() -> None:
    memory = plan_for(LLAMA_2_13B, RECIPE).memory
    assert memory.train_lora < memory.train_lora_on_base / 4


MASKS = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.5, "protect_first": 0, "protect_last": 0}


def masks(**fields: object) -> dict:
    return {"pruning": MASKS | fields, "quantization": {"scheme": "none"}}


def test_compressed_files_hold_kept_weights_and_a_bit_for_each() -> None:
    """0.5 of the weights and 1/16 for the mask, of all that is in decoder layers: 9/16 at bf16."""
    linear, others = 12_687_769_600, 328_094_720
    assert plan_for(LLAMA_2_13B, masks(storage="compressed")).bytes.checkpoint == 2 * others + linear * 9 // 8
    assert plan_for(LLAMA_2_13B, masks()).bytes.checkpoint == 2 * (linear + others) + linear // 8


def test_compressed_files_take_as_much_memory_as_others() -> None:
    compressed, dense = plan_for(LLAMA_2_13B, masks(storage="compressed")), plan_for(LLAMA_2_13B, masks())
    assert compressed.memory == dense.memory


def test_masked_training_needs_the_masks_and_one_update_more() -> None:
    memory = plan_for(LLAMA_2_13B, masks()).memory
    assert memory.train_lora - memory.train_lora_on_base == 12_687_769_600 // 8 + 2 * 4 * 5120 * 13824


def test_bits_of_masks_are_padded_by_the_row() -> None:
    geometry = describe(LLAMA | {"intermediate_size": 50})
    recipe = Recipe.model_validate(masks())
    down = 32 * (7 - 50 / 8)  # bytes that padding adds to each layer: rows of 50 bits take 7 bytes
    weights = 4 * (32 * 96 + 3 * 32 * 50)
    plan = make_plan(geometry, recipe, flops_per_second=1e12)
    assert plan.bytes.checkpoint == geometry.parameters() * 2 + weights / 8 + 4 * down


def test_pruning_alone_keeps_the_type_of_the_base_model() -> None:
    geometry = describe(LLAMA)
    recipe = Recipe.model_validate({"pruning": RECIPE["pruning"] | {"protect_first": 1, "protect_last": 1}})
    alone = recipe.model_copy(update={"quantization": Quantization(scheme=Scheme.NONE)})
    base = geometry.parameters()
    for size in (2, 4):
        plan = make_plan(geometry, alone, base_bytes=size * base + 1000, flops_per_second=1e12)
        assert plan.bytes.checkpoint == size * plan.parameters.pruned


def test_only_experts_at_work_take_time() -> None:
    """8 experts of which 2 work, against 2 of 2: the same time to score, apart from the router's rows."""
    text = {"criterion": "taylor", "ratio": 0.3, "protect_first": 0, "protect_last": 0,
            "calibration": {"corpus": "general", "samples": 65_536, "sequence_length": 4096}}  # fmt: skip
    minutes = [
        plan_for(MIXTURE | {"num_experts": experts}, {"pruning": text}).minutes["calibrate"] for experts in (8, 2)
    ]
    assert minutes[0] == pytest.approx(minutes[1], rel=0.03)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("include_embeddings", [False, True])
@pytest.mark.parametrize("family", [{"model_type": "llama"}, {"model_type": "phi3", "pad_token_id": 0}, MIXTURE])
def test_nf4_is_as_large_as_bitsandbytes_makes_it(
    family: dict, include_embeddings: bool, tied: bool, tmp_path: Path
) -> None:
    """To the byte, but for the note on shape and types: the length of a number in it depends on the weights."""
    config = TINY | family | {"tie_word_embeddings": tied, "hidden_size": 72, "head_dim": 18}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config["model_type"]](**config))
    model.save_pretrained(tmp_path / "base")
    quantize_nf4(tmp_path / "base", tmp_path / "nf4", "cpu", include_embeddings=include_embeddings)
    with safe_open(tmp_path / "nf4" / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    size = sum(tensor.nbytes for name, tensor in tensors.items() if "quant_state" not in name)
    geometry = describe(json.loads((tmp_path / "base" / "config.json").read_text()))
    quantization = Quantization(include_embeddings=include_embeddings)
    assert loaded_bytes(geometry, geometry.full_widths, quantization) == size


def test_embeddings_in_four_bits_make_a_70b_model_smaller() -> None:
    """LLaMA-3.1-70B at 0.85: embeddings and head are 2.1 of its 17.85 billion parameters."""
    everything = plan_for(LLAMA_31_70B, RECIPE | {"quantization": {"include_embeddings": True}})
    layers = plan_for(LLAMA_31_70B, RECIPE)
    saved = layers.bytes.checkpoint - everything.bytes.checkpoint
    assert saved == pytest.approx(2 * 128_256 * 8192 * (2 - 0.5 - 1 / 64), rel=1e-3)
    assert layers.reduction.bytes == pytest.approx(11.4, abs=0.1)
    assert everything.reduction.bytes == pytest.approx(15.3, abs=0.1)
    assert any("1.96 GiB" in note for note in everything.notes)


def test_criteria_cost_what_they_compute() -> None:
    """LLaMA-2-13B at 10^12 FLOP/s, of which 0.4 count; one pass of the text through it is two operations a weight."""
    text = {"calibration": {"corpus": "general", "samples": 128, "sequence_length": 2048}}
    one_pass = 2 * 13_015_864_320 * 128 * 2048 / 0.4e12 / 60

    def minutes(**pruning: object) -> dict[str, float]:
        return plan_for(LLAMA_2_13B, {"pruning": {"ratio": 0.5} | text | pruning}).minutes

    magnitude, random = minutes(criterion="magnitude"), minutes(criterion="random")
    assert magnitude["calibrate"] - random["calibrate"] == pytest.approx(random["prune"], rel=0.05)
    assert minutes(criterion="wanda")["calibrate"] == pytest.approx(one_pass, rel=0.05)
    assert minutes(criterion="taylor")["calibrate"] == pytest.approx(4 * one_pass, rel=0.05)
    of_weights = [minutes(method="unstructured", criterion=name) for name in ("magnitude", "wanda", "sparsegpt")]
    assert of_weights[0]["prune"] == random["prune"]
    assert of_weights[1]["prune"] - random["prune"] == pytest.approx(2 * one_pass, rel=0.05)
    assert of_weights[2]["prune"] > of_weights[1]["prune"]


def test_evaluation_takes_time_for_the_upper_bound_and_for_overlapping_windows() -> None:
    def evaluate(**evaluation: object) -> float:
        recipe = {
            "pruning": {"criterion": "magnitude", "ratio": 0.5},
            "evaluation": {"corpora": ["prose"]} | evaluation,
        }
        return plan_for(LLAMA_2_13B, recipe).minutes["evaluate"]

    assert evaluate(probe=False) < evaluate(direct=False) < evaluate()
    assert evaluate(probe=False, stride=64) == pytest.approx(4 * evaluate(probe=False), rel=0.01)


def test_quantizing_takes_a_cpu_longer_than_reading_and_a_gpu_does_not() -> None:
    """6 billion weights of LLaMA-2-13B at 0.65: with reading five minutes on two cores, on a GPU under one."""
    recipe = Recipe.model_validate({"pruning": {"criterion": "random", "ratio": 0.65}})
    minutes = {
        flops: make_plan(describe(LLAMA_2_13B), recipe, flops_per_second=flops).minutes["quantize"]
        for flops in (276e9, 400e12)
    }
    reading = 2 * 6_005_662_720 / 250e6 / 60
    assert minutes[276e9] == pytest.approx(reading + 6_005_662_720 / 22e6 / 60, rel=0.02)
    assert minutes[400e12] == pytest.approx(reading, rel=0.01)


def test_training_against_4_bits_rounds_all_weights_at_each_step() -> None:
    """10 steps on two cores: as long as quantizing ten times, beside the training itself. Reconstruction asks the base
    model twice, the pruned one seven times, once for each group of a layer's matrices but twice where text is changed.
    """
    geometry = describe(LLAMA_2_13B)

    def align(aware: bool | None, reconstruction_tokens: int = 0) -> float:
        text = {"corpora": [{"name": "prose"}], "tokens": 20_480, "batch_tokens": 2048, "sequence_length": 256}
        alignment = text | {"quantization_aware": aware, "reconstruction_tokens": reconstruction_tokens}
        recipe = {"pruning": {"criterion": "random", "ratio": 0.65}, "alignment": alignment}
        return make_plan(geometry, Recipe.model_validate(recipe), flops_per_second=276e9).minutes["align"]

    rounding = align(None) - align(False)
    assert rounding == pytest.approx(10 * 6_005_662_720 / 22e6 / 60, rel=0.02)
    cut = pruned_widths(geometry, Pruning(criterion=Criterion.RANDOM, ratio=0.65))
    base, pruned = (working_parameters(geometry, widths) for widths in (geometry.full_widths, cut))
    passes = (4 * base + 14 * pruned) * 10_240 / 276e9 / EFFICIENCY / 60
    assert align(None, 10_240) - align(None) == pytest.approx(passes, rel=0.01)


def test_gradients_are_matched_at_the_speed_of_fp32() -> None:
    """Of the pruned model, in two passes of 6 operations a weight and token; words alone are taught without."""
    tokens, geometry = 20_480, describe(LLAMA_2_13B)

    def align(fp32: float, **alignment: object) -> float:
        text = {"corpora": [{"name": "prose"}], "tokens": tokens, "batch_tokens": 2048, "sequence_length": 256}
        recipe = {"pruning": {"criterion": "random", "ratio": 0.65}, "alignment": text | alignment}
        plan = make_plan(geometry, Recipe.model_validate(recipe), flops_per_second=4e14, fp32_flops_per_second=fp32)
        return plan.minutes["align"]

    pruned = working_parameters(geometry, pruned_widths(geometry, Pruning(criterion=Criterion.RANDOM, ratio=0.65)))
    slower = 12 * pruned * tokens * (1 / 2e13 - 1 / 4e14) / EFFICIENCY / 60
    assert align(2e13) - align(4e14) == pytest.approx(slower, abs=0.002)
    assert align(2e13, gradient_matching=0) == align(4e14, gradient_matching=0)
