"""Memory to align: the optimizers' own states as the oracle, and the paper's largest model."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from publisher.architecture.widths import pruned_widths
from publisher.families.describe import describe
from publisher.plan.align import AlignMemory, Machine, align_memory, optimizer_bytes, trained_shapes
from publisher.plan.plan import GIB, Plan, make_plan
from publisher.recipe import Alignment, Optimizer, Recipe
from tests.architecture.test_geometry import LLAMA_2_70B
from tests.models import tiny_llama
from worker.alignment.optimizers import make_optimizer
from worker.alignment.optimizers.state import state_bytes

LLAMA_31_70B: dict[str, Any] = LLAMA_2_70B | {"vocab_size": 128256}
CORPORA = {"corpora": [{"name": "general"}]}


def planned(alignment: dict[str, Any], config: dict[str, Any] = LLAMA_31_70B) -> Plan:
    recipe = {"pruning": {"criterion": "random", "ratio": 0.85}, "alignment": CORPORA | alignment}
    return make_plan(describe(config), Recipe.model_validate(recipe), flops_per_second=1e12)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_states_are_as_large_as_the_optimizer_makes_them(optimizer: Optimizer, tmp_path: Path) -> None:
    """After one step on a model whose matrices are large enough for 8-bit moments."""
    folder = tiny_llama(tmp_path, hidden_size=64, intermediate_size=128, head_dim=32, num_hidden_layers=2)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.get_output_embeddings().requires_grad_(False)
    alignment = Alignment.model_validate(CORPORA | {"optimizer": optimizer.value, "rank": 8})
    made = make_optimizer(model, alignment)
    model(torch.arange(12).view(1, 12), labels=torch.arange(12).view(1, 12)).loss.backward()
    made.step()
    geometry = describe(json.loads((folder / "config.json").read_text()))
    matrices, others, frozen = trained_shapes(geometry, geometry.full_widths)
    wanted = sum(optimizer_bytes(shape, optimizer, 8) for shape in matrices)
    wanted += sum(optimizer_bytes(shape, optimizer, 8, matrix=False) for shape in others)
    assert frozen == 320 * 64
    assert state_bytes(made) == pytest.approx(wanted, rel=0.02)


def test_what_the_largest_model_of_the_paper_needs() -> None:
    """LLaMA-3.1-70B at 0.85. With everything in bf16, moments too, states would be 127 GiB. Here masters, gradients
    and moments are fp32, and GPUs multiply with bf16 copies: 18 bytes a trained weight, 4 a weight of the head."""
    plan = planned({"objective": "language_model"})
    head = 128_256 * 8192
    trained = plan.parameters.pruned - head
    assert round((trained * 8 + head * 2) / GIB) == 127
    assert plan.memory.align_states == trained * 18 + head * 4


def test_the_teacher_is_the_base_model_in_bf16() -> None:
    distilled, alone = planned({"gradient_matching": 0}), planned({"objective": "language_model"})
    assert distilled.memory.align is not None
    assert alone.memory.align is not None
    assert distilled.memory.align - alone.memory.align == 2 * distilled.parameters.base
    assert distilled.memory.align_states == alone.memory.align_states


def test_matching_gradients_takes_the_base_models_beside_and_activations_in_fp32() -> None:
    """Of a CPU, where activations are in fp32 anyway and the base model's are the larger ones."""
    geometry = describe(LLAMA_31_70B)
    widths = pruned_widths(geometry, _recipe(CORPORA).pruning)
    for machine in Machine:
        plain, matched, base = (
            align_memory(geometry, cut, _recipe(CORPORA | alignment), machine)
            for cut, alignment in (
                (widths, {"gradient_matching": 0}),
                (widths, {}),
                (geometry.full_widths, {"gradient_matching": 0}),
            )
        )
        assert plain is not None
        assert matched is not None
        assert base is not None
        more = matched.total - plain.total - sum(map(prod, trained_shapes(geometry, widths)[0])) * 4
        assert more >= base.activations - plain.activations
        if machine is Machine.CPU:
            assert more == base.activations - plain.activations
        assert matched.gpus(80) == plain.gpus(80)  # of several, which train without it


def _recipe(alignment: dict[str, Any]) -> Recipe:
    pruning = {"criterion": "random", "ratio": 0.85}
    return Recipe.model_validate({"pruning": pruning, "alignment": alignment})


def test_optimizers_in_order_of_their_memory() -> None:
    names = ["adafactor", "gradnormlorp", "apollo_adamw", "galore_adamw", "lotus", "adamw_8bit", "muon", "adamw"]
    states = [planned({"optimizer": name}).memory.align_states for name in names]
    assert states == sorted(states, key=lambda size: size or 0)


def test_lora_needs_little_beside_the_frozen_weights() -> None:
    plan = planned({"trainable": "low_rank", "rank": 8})
    assert plan.memory.align_states is not None
    assert plan.memory.align_states / (2 * plan.parameters.pruned) == pytest.approx(1.03, abs=0.03)


def test_gpus_share_states_and_teacher_but_each_has_its_activations() -> None:
    memory = AlignMemory(states=100 * GIB, teacher=40 * GIB, activations=10 * GIB)
    assert [memory.gpus(gib) for gib in (10, 24, 80, 150)] == [None, 10, 2, 1]


def test_the_plan_names_gpus_of_each_size() -> None:
    plan = planned({"sequence_length": 512, "batch_tokens": 512})
    assert plan.align_gpus is not None
    assert list(plan.align_gpus) == ["24", "48", "80", "141"]
    counts = [plan.align_gpus[gib] for gib in ("48", "80", "141")]
    assert counts == sorted(counts, key=lambda count: -(count or 0))
    assert plan.align_gpus_80gib == plan.align_gpus["80"]


def saved_for_backward(folder: Path, tokens: int, *, autocast: bool, checkpointing: bool = False) -> int:
    """Bytes of all tensors that autograd keeps for backward, parameters and their bf16 copies left out."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if checkpointing:
        model.train().activation_checkpointing_enable({"use_reentrant": False})
    weights = {weight.shape for weight in model.parameters()}
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own and tensor.shape not in weights and tensor.mT.shape not in weights:
            kept[storage] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model.model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("machine", Machine)
def test_activations_are_those_that_autograd_keeps(machine: Machine, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path, hidden_size=256, intermediate_size=704, head_dim=64, max_position_embeddings=512)
    geometry = describe(json.loads((folder / "config.json").read_text()))
    recipe = {"pruning": {"criterion": "random", "ratio": 0.5}, "alignment": CORPORA | {"batch_tokens": 512}}
    memory = align_memory(geometry, geometry.full_widths, Recipe.model_validate(recipe), machine)
    assert memory is not None
    found = saved_for_backward(folder, 512, autocast=machine is Machine.GPU)
    logits = 4 * 2**23 * 4
    assert memory.activations - logits == pytest.approx(found, rel=0.2)


def test_with_checkpointing_it_is_what_enters_each_layer_and_one_layer_whole(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path, hidden_size=256, head_dim=64, max_position_embeddings=512, num_hidden_layers=16)
    geometry = describe(json.loads((folder / "config.json").read_text()))
    recipe = {"pruning": {"criterion": "random", "ratio": 0.5}, "alignment": CORPORA | {"batch_tokens": 512}}
    whole, thrifty = (
        align_memory(
            geometry,
            geometry.full_widths,
            Recipe.model_validate(recipe | {"alignment": recipe["alignment"] | {"activation_checkpointing": setting}}),
            Machine.CPU,
        )
        for setting in (False, True)
    )
    assert whole is not None
    assert thrifty is not None
    logits = 4 * 2**23 * 4
    found = saved_for_backward(folder, 512, autocast=False, checkpointing=True)
    one_layer = (whole.activations - logits) / geometry.layers
    assert thrifty.activations - logits - one_layer == pytest.approx(found, rel=0.2)
