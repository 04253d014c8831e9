"""What an adapter holds whole: only what training changed of it is for the base model.

Oracle: the base model itself where nothing was trained, and its values plus the difference that training made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from publisher.checkpoint.model_weights import Repository
from publisher.checkpoint.recovery import recover_adapter, recover_state
from publisher.checkpoint.recovery.methods.lora import LORA
from publisher.checkpoint.recovery.whole_parameters import carried_over, trained_difference
from publisher.errors import RequestFault
from publisher.manifest.manifest import AlignmentRecord, Manifest
from tests.checkpoint.pruned import MASKS, PROJECTIONS, make_pair, masks_of, save_checkpoint

TOKENS = torch.arange(40).reshape(2, 20) % 64
ALIGNED = AlignmentRecord(steps=1, tokens=64, seconds=1.0, peak_memory_bytes=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model in fp32, and a checkpoint of it in bf16 whose every weight alignment moved."""
    root = tmp_path_factory.mktemp("aligned")
    return aligned(root)


def aligned(root: Path, **config: Any) -> tuple[Path, Path]:
    pair = make_pair(**config)
    pair.base.float().save_pretrained(root / "base")
    move(pair.pruned, 0.1)
    masks = masks_of(pair.base)
    checkpoint = save_checkpoint(root / "checkpoint", pair.pruned.bfloat16(), base=str(root / "base"), masks=masks)
    Manifest.read(checkpoint).model_copy(update={"alignment": ALIGNED}).write(checkpoint)
    return root / "base", checkpoint


def move(model: torch.nn.Module, size: float, only: str = "") -> None:
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if only in name:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.data.add_((noise * size).to(parameter.dtype))


def read_model(folder: Path, **options: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    return model


def trained(model: PreTrainedModel, **config: Any) -> PeftModel:
    """Only its LoRA: whole parameters are still the checkpoint's."""
    torch.manual_seed(1)
    settings = {"r": 3, "lora_alpha": 5, "target_modules": PROJECTIONS, "init_lora_weights": False} | config
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings)).eval()


def loaded(base: PreTrainedModel, folder: Path) -> PeftModel:
    """With every tensor of the folder in its place, and every place of the adapter filled."""
    model = get_peft_model(base, PeftConfig.from_pretrained(str(folder))).eval()
    result = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
    return model


def whole(folder: Path) -> dict[str, Tensor]:
    state = load_file(folder / "adapter_model.safetensors")
    return {name: tensor for name, tensor in state.items() if ".lora_" not in name}


WAYS: list[dict[str, Any]] = [
    {"modules_to_save": ["lm_head", "embed_tokens"]},
    {"modules_to_save": ["norm", "input_layernorm"]},
    {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    {"trainable_token_indices": [3, 7, 63]},
    {"trainable_token_indices": {"embed_tokens": [0, 2], "lm_head": [1]}},
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("config", WAYS, ids=str)
def test_whole_parameter_that_was_not_trained_is_the_base_models_bit_by_bit(
    tmp_path: Path, folders: tuple[Path, Path], config: dict[str, Any], dtype: torch.dtype
) -> None:
    base, checkpoint = folders
    trained(read_model(checkpoint, dtype=dtype), **config).save_pretrained(tmp_path / "adapter")
    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    recovered, model = whole(tmp_path / "out"), read_model(base)
    assert recovered.keys() == whole(tmp_path / "adapter").keys() != set()
    own = model.state_dict()
    for name, tensor in recovered.items():
        expected = own[LORA.naming.parameter_of(name)]
        if name.endswith("trainable_tokens_delta"):
            indices = config["trainable_token_indices"]
            expected = expected[indices if isinstance(indices, list) else indices[name.split(".")[-3]]]
        assert torch.equal(tensor, expected), name
    assert any("whole parameters" in note for note in report.notes)

    lora_alone = loaded(read_model(base), tmp_path / "out")
    state = {n: t for n, t in load_file(tmp_path / "out/adapter_model.safetensors").items() if ".lora_" in n}
    plain = {key: value for key, value in config.items() if key == "target_modules"}
    only = trained(read_model(base), **plain)
    assert not set_peft_model_state_dict(only, state).unexpected_keys
    assert torch.equal(lora_alone(TOKENS).logits, only(TOKENS).logits)


@pytest.mark.parametrize(
    ("config", "parameter"),
    [
        ({"modules_to_save": ["lm_head"]}, "lm_head.weight"),
        ({"modules_to_save": ["embed_tokens"]}, "model.embed_tokens.weight"),
        ({"modules_to_save": ["post_attention_layernorm"]}, "model.layers.2.post_attention_layernorm.weight"),
    ],
    ids=["head", "embeddings", "norm"],
)
def test_what_training_changed_is_added_to_the_base_models_value(
    tmp_path: Path, folders: tuple[Path, Path], config: dict[str, Any], parameter: str
) -> None:
    base, checkpoint = folders
    model = trained(read_model(checkpoint, dtype=torch.float32), **config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    move(model, 0.05, only="modules_to_save")
    model.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", strength=1.7)
    key = f"base_model.model.{parameter.removesuffix('.weight')}.modules_to_save.default.weight"
    change = model.state_dict()[key] - before[key]
    assert change.abs().max() > 0.01
    expected = read_model(base).state_dict()[parameter] + change  # strength is the update's alone
    torch.testing.assert_close(whole(tmp_path / "out")[f"base_model.model.{parameter}"], expected, rtol=0, atol=1e-6)


def test_rows_of_new_tokens_are_the_adapters_own(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    base, checkpoint = folders
    model = read_model(checkpoint)
    model.resize_token_embeddings(70)
    move(model.get_input_embeddings(), 0.02)
    tuned = trained(model)
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    assert report.vocabulary == 70
    own, recovered = whole(tmp_path / "adapter"), whole(tmp_path / "out")
    values = read_model(base).state_dict()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        saved, written = own[f"base_model.model.{name}"], recovered[f"base_model.model.{name}"]
        assert torch.equal(written[64:], saved[64:].float())
        assert torch.equal(written[:64], values[name]) == (name == "lm_head.weight")
    resized = read_model(base)
    resized.resize_token_embeddings(70)
    loaded(resized, tmp_path / "out")


def test_biases_that_were_trained_are_carried_over(tmp_path: Path) -> None:
    base, checkpoint = aligned(tmp_path, attention_bias=True)
    tuned = trained(read_model(checkpoint, dtype=torch.float32), bias="lora_only", target_modules=["o_proj"])
    own = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    move(tuned, 0.05, only="base_layer.bias")
    tuned.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    values = read_model(base).state_dict()
    recovered = whole(tmp_path / "out")
    assert len(recovered) == 4
    for name, tensor in recovered.items():
        change = tuned.state_dict()[name] - own[name]
        torch.testing.assert_close(tensor, values[LORA.naming.parameter_of(name)] + change, rtol=0, atol=1e-6)


def test_head_of_a_tied_base_model_is_its_embeddings(tmp_path: Path) -> None:
    base, checkpoint = aligned(tmp_path, tie_word_embeddings=True)
    tuned = trained(read_model(checkpoint), modules_to_save=["lm_head"])
    tuned.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    embeddings = read_model(base).get_input_embeddings().weight
    assert torch.equal(whole(tmp_path / "out")["base_model.model.lm_head.weight"], embeddings)


@pytest.mark.parametrize("lost", ["base", "checkpoint"])
def test_values_that_cannot_be_had_are_asked_for(tmp_path: Path, folders: tuple[Path, Path], lost: str) -> None:
    base, checkpoint = folders
    trained(read_model(checkpoint), modules_to_save=["lm_head"]).save_pretrained(tmp_path / "adapter")
    small = tmp_path / "described"
    small.mkdir()
    for name in ("loram.json", "config.json", "pruning_masks.safetensors"):
        (small / name).write_bytes((checkpoint / name).read_bytes())
    there = {"base_model": "org/not-here"} if lost == "base" else {"base_model": str(base)}
    with pytest.raises(RequestFault, match=r"lm_head\.weight is a whole parameter.*--base") as caught:
        recover_adapter(
            tmp_path / "adapter",
            checkpoint if lost == "base" else small,
            tmp_path / "out",
            repository=Repository("org/gone") if lost == "checkpoint" else None,
            **there,  # type: ignore[arg-type]
        )
    assert ("org/not-here" if lost == "base" else "org/gone") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_checkpoint_that_was_not_aligned_has_the_base_models_values_and_nothing_is_fetched(tmp_path: Path) -> None:
    pair = make_pair()
    checkpoint = save_checkpoint(tmp_path / "checkpoint", pair.pruned)
    trained(pair.pruned, modules_to_save=["lm_head"]).save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out")
    assert torch.equal(whole(tmp_path / "out")["base_model.model.lm_head.weight"], pair.base.lm_head.weight)


def test_another_model_is_not_taken_for_the_base(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    _, checkpoint = folders
    trained(read_model(checkpoint), modules_to_save=["lm_head"]).save_pretrained(tmp_path / "adapter")
    make_pair(hidden_size=48).base.save_pretrained(tmp_path / "other")
    places = (tmp_path / "adapter", checkpoint, tmp_path / "out")
    with pytest.raises(RequestFault, match="it has hidden_size 48, the checkpoint 24"):
        recover_adapter(*places, base_model=str(tmp_path / "other"))
    with pytest.raises(RequestFault, match=r"lm_head\.weight has shape \(64, 24\), and in .*other it is \(64, 48\)"):
        recover_adapter(*places, base_model=str(tmp_path / "other"), force=True)


def test_whole_parameter_in_memory_is_refused(folders: tuple[Path, Path]) -> None:
    state: Mapping[str, Tensor] = {"base_model.model.lm_head.weight": torch.zeros(64, 24)}
    with pytest.raises(RequestFault, match="what it was before training is not known"):
        recover_state(state, MASKS)


def test_difference_is_zero_whatever_the_dtype_it_was_loaded_in() -> None:
    own = torch.randn(50, 8)
    for loaded_in in (torch.bfloat16, torch.float16, torch.float32):
        for saved_in in (loaded_in, torch.float32):
            assert not trained_difference(own.to(loaded_in).to(saved_in), own).any()
    changed = own.bfloat16().float()
    changed[3] += 1
    difference = trained_difference(changed, own)
    assert not difference[:3].any()
    assert not difference[4:].any()
    torch.testing.assert_close(difference[3], torch.ones(8), atol=0.02, rtol=0)


def test_sum_is_written_in_a_dtype_that_holds_both() -> None:
    own, base = torch.randn(4, 3).bfloat16(), torch.randn(4, 3)
    assert torch.equal(carried_over(own, own, base), base)
    assert carried_over(own, own, base.bfloat16()).dtype == torch.bfloat16
    assert carried_over(own, own, base.half()).dtype == torch.float32
