from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.recipe import ProbeBudget
from tests.devices import each_device
from tests.models import tiny_llama
from worker.evaluation.lora_memory import kept_values, lora_memory, of_kept
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.models.measure import compute_dtype
from worker.probe.probe import with_lora
from worker.streaming.weights import read_geometry
from worker.training.batch_loss import NextToken

WIDE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def _saved_bytes(folder: Path, tokens: Tensor, device: str = "cpu") -> int:
    """What autograd keeps of one forward pass, parameters apart, computed as in training."""
    adapter = with_lora(load_causal(folder, device), 8)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in adapter.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast(device, compute_dtype(device), enabled=device == "cuda")
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        NextToken(head_of(adapter.get_base_model()))(adapter.get_base_model(), tokens.to(device))
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Of two and of four layers."""
    return [tiny_llama(tmp_path / str(layers), num_hidden_layers=layers, **WIDE) for layers in (2, 4)]


def test_values_kept_for_the_way_back_are_those_that_autograd_keeps(models: list[Path]) -> None:
    tokens = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(0))
    two, four = (_saved_bytes(folder, tokens) for folder in models)
    of_two_layers = 4 * (kept_values(read_geometry(models[1])) - kept_values(read_geometry(models[0])))
    assert (four - two) / tokens.numel() == pytest.approx(of_two_layers, rel=0.1)


@each_device
def test_the_estimate_has_room_for_what_each_layer_keeps(models: list[Path], device: str) -> None:
    tokens = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(0))
    two, four = (_saved_bytes(folder, tokens, device) for folder in models)
    values = kept_values(read_geometry(models[1])) - kept_values(read_geometry(models[0]))
    estimated = tokens.numel() * values * compute_dtype(device).itemsize * of_kept(device)
    assert 0 < four - two < estimated


def test_estimate_grows_with_what_training_holds(models: list[Path]) -> None:
    small, large = map(read_geometry, models)
    assert _needed(small) < _needed(large)
    assert _needed(large, rank=64) > _needed(large)
    weights = large.parameters() * 4
    assert _needed(large) > weights + 2**29


def _needed(geometry: Geometry, rank: int = 8) -> int:
    return lora_memory(geometry, ProbeBudget(rank=rank), torch.device("cpu"))
