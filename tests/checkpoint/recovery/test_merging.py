"""Recovery where single weights were pruned: the base model's weights plus the masked update, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, PreTrainedModel, Qwen2Config

from publisher.checkpoint.masked import mask_adapter
from publisher.checkpoint.model_weights import ModelWeights
from publisher.checkpoint.recovery import TrainedOn, merge_folder, recover_adapter
from publisher.checkpoint.recovery.merging import merged_weight
from publisher.checkpoint.recovery.whole_parameters import Origins
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.errors import RequestFault
from publisher.manifest.manifest import AlignmentRecord, Manifest
from publisher.weights.folder import StoredWeights
from tests.checkpoint.pruned import MASKS, lora, make_pair, manifest, save_checkpoint
from tests.checkpoint.sparse import random_model, write_masks, zero_pruned
from tests.checkpoint.test_masked import SIZES, TOKENS
from tests.models import byte_tokenizer


def prepared(
    folder: Path, config: Any = None, dtype: torch.dtype = torch.float64, shards: str = "5GB"
) -> tuple[Path, Path]:
    """Folders of a base model with its tokenizer and of a checkpoint made from it."""
    model = random_model(config or LlamaConfig(**SIZES), dtype)
    model.save_pretrained(folder / "base", max_shard_size=shards)
    byte_tokenizer().save_pretrained(folder / "base")
    (folder / "base" / "README.md").write_text("# The base model")
    model.save_pretrained(folder / "checkpoint")
    zero_pruned(folder / "checkpoint", write_masks(folder / "base", folder / "checkpoint/pruning_masks.safetensors"))
    manifest(folder / "checkpoint", "org/base", "c" * 40).write(folder / "checkpoint")
    return folder / "base", folder / "checkpoint"


def trained(checkpoint: Path, folder: Path, masked: bool = True, **config: Any) -> PeftModel:
    torch.manual_seed(1)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "init_lora_weights": False} | config
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False).eval()
    if masked:
        mask_adapter(tuned, checkpoint)
    tuned.save_pretrained(folder)
    return tuned


def with_update(base: Path, checkpoint: Path, tuned: PeftModel) -> PreTrainedModel:
    """The base model plus the difference that training made to the weights of the pruned one."""
    before = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    after = tuned.merge_and_unload().state_dict()
    model = AutoModelForCausalLM.from_pretrained(base)
    state = {name: tensor + (after[name] - before[name]) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 5, "layers.1.mlp.down_proj": 2}, "alpha_pattern": {"v_proj": 11, "mlp.up_proj": 2}},
        {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
        {"modules_to_save": ["lm_head"], "target_modules": ["up_proj"]},
        {"layers_to_transform": [1], "target_modules": ["down_proj"]},
    ],
    ids=lambda config: "-".join(config) or "plain",
)
def test_merged_model_is_the_base_with_the_update_of_training(tmp_path: Path, config: dict[str, Any]) -> None:
    base, checkpoint = prepared(tmp_path)
    tuned = trained(checkpoint, tmp_path / "adapter", **config)
    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    expected = with_update(base, checkpoint, tuned)
    torch.testing.assert_close(merged(TOKENS).logits, expected(TOKENS).logits, rtol=0, atol=1e-9)
    assert report.merged
    assert report.parameters_after == sum(parameter.numel() for parameter in merged.parameters())


def test_scaled_update_is_merged_at_that_strength(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    tuned = trained(checkpoint, tmp_path / "adapter", alpha_pattern={"v_proj": 11})
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base), strength=1.3)
    for module in tuned.modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] *= 1.3
    merged, expected = AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), with_update(base, checkpoint, tuned)
    torch.testing.assert_close(merged(TOKENS).logits, expected(TOKENS).logits, rtol=0, atol=1e-9)


def test_biases_are_merged_too(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path, Qwen2Config(**SIZES))
    tuned = trained(checkpoint, tmp_path / "adapter", target_modules=["q_proj", "v_proj"], lora_bias=True)
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    expected = with_update(base, checkpoint, tuned)
    torch.testing.assert_close(merged(TOKENS).logits, expected(TOKENS).logits, rtol=0, atol=1e-9)


def test_masked_adapter_on_the_base_model_is_the_merged_model(tmp_path: Path) -> None:
    """The way without writing a model: the adapter as it is, masked, on the base model."""
    base, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    live = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "adapter"), autocast_adapter_dtype=False
    )
    mask_adapter(live, checkpoint)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(live(TOKENS).logits, merged(TOKENS).logits, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_keep_their_dtype_and_pruned_ones_their_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    base, checkpoint = prepared(tmp_path, dtype=dtype, shards="20KB")
    trained(checkpoint, tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    before, after = StoredWeights(base), StoredWeights(tmp_path / "merged")
    masks = WeightMasks(checkpoint / "pruning_masks.safetensors")
    assert after.entries == before.entries
    assert after.files == before.files
    assert len(after.files) > 2
    for name in before.entries:
        if name in masks:
            pruned = ~masks.mask(name)
            assert torch.equal(after.read(name)[pruned], before.read(name)[pruned])
            assert not torch.equal(after.read(name), before.read(name))
        elif "norm" in name or "embed" in name:
            assert torch.equal(after.read(name), before.read(name))


def test_update_is_rounded_once_and_only_where_kept() -> None:
    weight = torch.tensor([[1.0, -0.0, 256.0]], dtype=torch.bfloat16)
    update = torch.tensor([[2.0**-9, 1.0, 1.5]])
    mask = torch.tensor([[True, False, True]])
    merged = merged_weight(weight, update, mask)
    assert merged.tolist() == [[1.0, -0.0, 258.0]]
    assert torch.signbit(merged[0, 1])


def test_config_and_tokenizer_come_along_and_the_base_models_card_does_not(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    assert {p.name for p in base.iterdir()} - {p.name for p in (tmp_path / "merged").iterdir()} == {"README.md"}
    assert (tmp_path / "merged" / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_base_model_that_is_no_folder_is_asked_for(tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter")
    with pytest.raises(RequestFault, match=f"hf download org/base --revision {'c' * 40}") as caught:
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged")
    assert "no stock adapter" in str(caught.value)
    assert not (tmp_path / "merged").exists()


def test_base_model_that_the_manifest_finds_on_this_machine_is_used(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    manifest(checkpoint, str(base), "c" * 40).write(checkpoint)
    trained(checkpoint, tmp_path / "adapter")
    assert recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged").base_model == str(base)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (
            {"modules_to_save": ["down_proj"], "target_modules": ["q_proj"]},
            r"layers\.1\.mlp\.down_proj\.weight is a whole",
        ),
        ({"lora_bias": True, "target_modules": ["q_proj"]}, r"no model\.layers\.0\.self_attn\.q_proj\.bias to merge"),
    ],
    ids=["whole pruned matrix", "bias that the base has not"],
)
def test_what_cannot_be_merged_exactly_is_refused_by_name(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    base, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter", masked=False, **config)
    with pytest.raises(RequestFault, match=named):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    assert not (tmp_path / "merged").exists()


def test_embeddings_that_are_tied_are_refused(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path, LlamaConfig(**SIZES, tie_word_embeddings=True))
    trained(checkpoint, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(RequestFault, match="would change both"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))


def test_another_model_is_not_taken_for_the_base(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter")
    random_model(LlamaConfig(**SIZES | {"intermediate_size": 40})).save_pretrained(tmp_path / "other")
    masks = WeightMasks(checkpoint / "pruning_masks.safetensors")
    with pytest.raises(RequestFault, match="is not the base model"):
        merge_folder(tmp_path / "adapter", tmp_path / "out", masks, tmp_path / "other")
    weights = json.loads((base / "config.json").read_text())
    assert weights["intermediate_size"] == 35


@pytest.mark.parametrize(
    "config",
    [
        {"modules_to_save": ["lm_head", "norm"], "target_modules": ["up_proj"]},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"trainable_token_indices": [3, 7], "target_modules": ["q_proj"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("train", [False, True])
def test_of_whole_parameters_only_what_training_changed_is_merged(
    tmp_path: Path, config: dict[str, Any], train: bool
) -> None:
    base, checkpoint = prepared(tmp_path)
    aligned(checkpoint)
    tuned = trained(checkpoint, tmp_path / "untrained", **config)
    if train:
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.data += 0.25
    tuned.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    expected = with_update(base, checkpoint, tuned)
    before, after = StoredWeights(base), StoredWeights(tmp_path / "merged")
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(after.read(name), tensor, rtol=0, atol=1e-9)
        if not train and "layers" not in name and "target_modules" not in config:
            assert torch.equal(after.read(name), before.read(name))
    assert torch.equal(after.read("model.norm.weight"), before.read("model.norm.weight")) or train


def aligned(checkpoint: Path) -> None:
    """What alignment does to weights that are not pruned, and says in the manifest."""
    weights = load_file(checkpoint / "model.safetensors")
    torch.manual_seed(7)
    moved = {n: t if "proj" in n else t + torch.randn_like(t) * 0.1 for n, t in weights.items()}
    save_file(moved, checkpoint / "model.safetensors", metadata={"format": "pt"})
    said = AlignmentRecord(steps=1, tokens=64, seconds=1.0, peak_memory_bytes=0)
    Manifest.read(checkpoint).model_copy(update={"alignment": said}).write(checkpoint)


def test_embeddings_that_training_resized_ask_for_a_resized_base_model(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.resize_token_embeddings(70)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(RequestFault, match="resize the base model's"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    resized = AutoModelForCausalLM.from_pretrained(base)
    resized.resize_token_embeddings(70)
    resized.save_pretrained(tmp_path / "resized")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(tmp_path / "resized"))
    rows, own = StoredWeights(tmp_path / "merged"), load_file(tmp_path / "adapter/adapter_model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(rows.read(name)[:64], StoredWeights(base).read(name)[:64])
        assert torch.equal(rows.read(name)[64:], own[f"base_model.model.{name}"][64:])


def test_embeddings_that_are_tied_where_the_config_does_not_say_so_are_refused(tmp_path: Path) -> None:
    config = Gemma2Config(**SIZES, head_dim=8, query_pre_attn_scalar=8)
    base, checkpoint = prepared(tmp_path, config)
    values = json.loads((base / "config.json").read_text())
    del values["tie_word_embeddings"]
    (base / "config.json").write_text(json.dumps(values))
    trained(checkpoint, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(RequestFault, match="would change both"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))


def test_copy_of_tied_embeddings_that_was_trained_beside_the_head_is_refused(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path, LlamaConfig(**SIZES, tie_word_embeddings=True))
    trained(checkpoint, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    with pytest.raises(RequestFault, match="would change both"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))


def test_tokens_that_were_trained_in_tied_embeddings_are_merged_into_both(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path, LlamaConfig(**SIZES, tie_word_embeddings=True))
    tuned = trained(checkpoint, tmp_path / "a", target_modules=["q_proj"], trainable_token_indices=[3, 7])
    for name, parameter in tuned.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data += 0.25
    tuned.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    moved = StoredWeights(tmp_path / "merged").read("model.embed_tokens.weight") - StoredWeights(base).read(
        "model.embed_tokens.weight"
    )
    assert moved.abs().sum(1).nonzero().flatten().tolist() == [3, 7]


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"r": 1}, "PEFT makes"), ({"alora_invocation_tokens": [1, 2]}, "acts behind these tokens alone")],
)
def test_config_that_means_another_update_than_the_merged_one_is_refused(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    base, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(RequestFault, match=named):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))


def test_checkpoint_of_single_weights_is_not_taken_for_its_base(tmp_path: Path) -> None:
    _, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter")
    with pytest.raises(RequestFault, match="is the checkpoint, not the base model"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(checkpoint))


def test_mark_of_a_masked_adapter_does_not_outlive_it(tmp_path: Path) -> None:
    base, checkpoint = prepared(tmp_path)
    trained(checkpoint, tmp_path / "adapter", masked=True)
    trained(checkpoint, tmp_path / "adapter", masked=False)
    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", base_model=str(base))
    assert [note for note in report.notes if "does not say that its update was masked" in note]


def test_update_of_removed_heads_and_neurons_can_be_merged_too(tmp_path: Path) -> None:
    """As the recovered adapter has it on the base model."""
    pair = make_pair()
    pair.base.save_pretrained(tmp_path / "base")
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    lora(pair.pruned, use_rslora=True).save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model=str(tmp_path / "base"))
    weights = ModelWeights(checkpoint), ModelWeights(tmp_path / "base")
    trained_on = TrainedOn(checkpoint, Origins(*weights))
    report = merge_folder(tmp_path / "adapter", tmp_path / "merged", MASKS, tmp_path / "base", trained_on=trained_on)

    adapted = PeftModel.from_pretrained(pair.base, str(tmp_path / "out"), autocast_adapter_dtype=False)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(TOKENS).logits, adapted(TOKENS).logits, rtol=0, atol=1e-9)
    assert report.notes == ()
