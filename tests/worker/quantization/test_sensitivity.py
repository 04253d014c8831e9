"""Matrices that stay in bf16: those that rounding hurts most, as many as fit, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

import publisher.checkpoint  # noqa: F401 - layers of different widths
from publisher.base_model.facts import inspect_folder
from publisher.manifest.manifest import Manifest
from publisher.plan.plan import make_plan
from publisher.plan.sizes import NF4_TABLES
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.quantization.test_embeddings import dense_twin
from tests.worker.stages.building import PRUNING, prose, request_for
from tests.worker.stages.test_plan_holds import tensor_bytes
from worker.context import RecordingContext
from worker.quantization.nf4 import load_published, quantize_nf4
from worker.quantization.packing import round_trip
from worker.quantization.sensitivity import kept_whole, rounding_errors
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from worker.streaming.model import LayerStream

TOKENS = torch.arange(5 * 24).view(5, 24) % 250
V_PROJ = "model.layers.{}.self_attn.v_proj"


@each_device
@torch.no_grad()
def test_errors_are_those_of_the_whole_model_s_hidden_states(tmp_path: Path, device: str) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    names = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    found = rounding_errors(LayerStream(base, device), TOKENS, names - {V_PROJ.format(0) + ".weight"}, scratch=tmp_path)
    assert found.keys() == names - {"lm_head.weight", V_PROJ.format(0) + ".weight"}
    for name, error in found.items():
        layer, weight = int(name.split(".")[2]), model.get_parameter(name)
        outputs, original = [], weight.detach().clone()
        handle = model.model.layers[layer].register_forward_hook(lambda *called, kept=outputs: kept.append(called[2]))
        model(TOKENS)
        weight.copy_(round_trip(weight))
        model(TOKENS)
        weight.copy_(original)
        handle.remove()
        before, after = (output.double() for output in outputs)
        apart, size = (after - before).square().sum(-1), before.square().sum(-1)
        assert error == pytest.approx(
            float((apart / size).mean() + apart.sum() / size.sum()), rel={"cpu": 1e-3, "cuda": 2e-2}[device]
        )


def test_the_worst_for_their_size_stay_as_far_as_they_fit() -> None:
    errors = {"large": 9.0, "small": 2.0, "harmless": 0.1, "worst": 3.0}
    weights = {"large": 6, "small": 1, "harmless": 1, "worst": 1, "not measured": 11}
    assert kept_whole(errors, weights, 0.0) == []
    assert kept_whole(errors, weights, 0.05) == ["worst"]
    assert kept_whole(errors, weights, 0.15) == ["small", "harmless", "worst"]  # large does not fit
    assert kept_whole(errors, weights, 0.4) == ["large", "small", "worst"]


@pytest.mark.parametrize("include_embeddings", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@torch.no_grad()
def test_named_modules_stay_and_load_as_they_are(tied: bool, include_embeddings: bool, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", hidden_size=64, dtype=torch.bfloat16, tie_word_embeddings=tied)
    bf16 = [V_PROJ.format(1), "model.layers.2.mlp.down_proj"]
    quantize_nf4(base, tmp_path / "all", "cpu", include_embeddings=include_embeddings)
    quantize_nf4(base, tmp_path / "nf4", "cpu", include_embeddings=include_embeddings, bf16=bf16)
    original, everything = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "all"))
    stored = load_file(tmp_path / "nf4" / "model.safetensors")
    for name in bf16:
        assert torch.equal(stored.pop(f"{name}.weight"), original[f"{name}.weight"])
    assert stored.keys() == {name for name in everything if not name.startswith(tuple(bf16))}
    assert all(torch.equal(stored[name], everything[name]) for name in stored if "quant_state" not in name)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4")
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    whole = {name for name, module in linear.items() if not isinstance(module, Linear4bit)}
    assert whole == {*bf16, *([] if include_embeddings else ["lm_head"])}
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == {*stored, *(f"{name}.weight" for name in bf16)}
    loaded = load_published(tmp_path / "nf4", "cpu")
    logits = dense_twin(loaded, base)(TOKENS).logits
    assert (loaded(TOKENS).logits - logits).abs().max() <= 5e-3 * logits.abs().max()


@pytest.mark.parametrize("method", [pytest.param("structured", marks=pytest.mark.long), "unstructured"])
def test_a_build_keeps_its_share_and_says_which(method: str, tmp_path: Path) -> None:
    base = tiny_llama(tmp_path / "base", dtype=torch.bfloat16, num_hidden_layers=4)
    alignment = {"corpora": ["prose"], "tokens": 512, "sequence_length": 32, "batch_tokens": 64}
    if method == "structured":
        alignment["reconstruction_tokens"] = 256
    pruning = PRUNING | {"method": method, "criterion": "magnitude", "ratio": 0.5}
    recipes = [
        Recipe.model_validate({"pruning": pruning, "alignment": alignment, "quantization": {"bf16_share": share}})
        for share in (0, 0.12)
    ]
    facts, stages = inspect_folder(base), StageStore(tmp_path / "stages")
    plain, kept = (
        run_pipeline(
            request_for(base, prose(tmp_path / "prose.jsonl"), recipe),
            stages,
            lambda _: RecordingContext(),
            Stage.PACKAGE,
        )[Stage.PACKAGE]
        for recipe in recipes
    )
    plans = [
        make_plan(facts.geometry, recipe, base_bytes=facts.bytes, flops_per_second=1e12).bytes for recipe in recipes
    ]
    modules = Manifest.read(kept).alignment.bf16_modules
    assert Manifest.read(plain).alignment.bf16_modules == []
    stored = load_file(kept / "model.safetensors")
    matrices = {name for name, tensor in stored.items() if tensor.dtype == torch.bfloat16 and tensor.ndim == 2}
    assert matrices == {f"{name}.weight" for name in modules} | {"model.embed_tokens.weight", "lm_head.weight"}
    linear = sum(module.weight.numel() for name, module in _linear(kept).items() if name != "lm_head")
    whole = sum(stored[f"{name}.weight"].numel() for name in modules)
    assert 0.06 < whole / linear <= 0.12
    masks = 0 if method == "structured" else tensor_bytes(kept / "pruning_masks.safetensors")
    size = tensor_bytes(kept / "model.safetensors") + masks
    assert size <= plans[1].checkpoint
    assert size + NF4_TABLES * len(modules) > plans[0].checkpoint
    cards = [(checkpoint / "README.md").read_text() for checkpoint in (plain, kept)]
    assert ["would have hurt most" in card for card in cards] == [False, True]
    assert all(f"`{name}`" in cards[1] for name in modules)
    config = json.loads((kept / "config.json").read_text())
    assert set(modules) < set(config["quantization_config"]["llm_int8_skip_modules"])


def _linear(checkpoint: Path) -> dict[str, nn.Linear]:
    """With their whole shapes."""
    config = json.loads((checkpoint / "config.json").read_text())
    del config["quantization_config"]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({"quantization": {"bf16_share": 0.1}}, "alignment's text tells"),
        ({"quantization": {"scheme": "none", "bf16_share": 0.1}}, "is for scheme nf4"),
        ({"quantization": {"bf16_share": 1}}, "less than 1"),
    ],
)
def test_what_cannot_be_kept_is_refused(recipe: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Recipe.model_validate({"pruning": {"criterion": "random", "ratio": 0.5}} | recipe)
