"""Scores of a streamed backward pass against a full one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from publisher.errors import RequestFault
from publisher.families.introspection import geometry_of
from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.streaming.families import FAMILIES, save_tiny
from worker.models.measure import compute_dtype
from worker.pruning.taylor import loss_gradient, taylor_importance
from worker.streaming.model import LayerStream
from worker.streaming.weights import read_config

SEQUENCES = torch.randint(0, 320, (5, 24), generator=torch.Generator().manual_seed(1))


def full_backward(folder: Path) -> dict[str, Tensor]:
    """|weight × gradient| of every parameter, one sample at a time, the plain definition."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for ids in SEQUENCES:
        logits = model(input_ids=ids[None]).logits[0, :-1]
        loss: Tensor = functional.cross_entropy(logits, ids[1:]) / len(SEQUENCES)
        loss.backward()  # type: ignore[no-untyped-call]
    products = {name: (p * p.grad).abs().detach() for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.double() for name, value in products.items()}


def by_hand(folder: Path) -> dict[str, Tensor]:
    """Unit by unit, by the structure's own slices of whole parameters."""
    products, geometry = full_backward(folder), geometry_of(read_config(folder))
    scores: dict[str, Tensor] = {}
    for layer in range(geometry.layers):
        kind = geometry.kind(layer)
        for unit, count in kind.units.items():
            total = torch.zeros(count, dtype=torch.float64)
            for name, spec in kind.parameters.items():
                values = products.get(f"model.layers.{layer}.{name}")
                if values is None or values.dim() < 2:
                    continue
                for index in range(count):
                    for part in spec.parts:
                        if part.unit is unit:
                            start = part.offset + index * part.span
                            total[index] += values.narrow(spec.axis, start, part.span).sum()
            scores[f"model.layers.{layer}.{unit}"] = total
    return scores


def streamed(
    folder: Path, scratch: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, **options: int
) -> dict[str, Tensor]:
    scratch.mkdir()
    geometry, stream = geometry_of(read_config(folder)), LayerStream(folder, device, dtype)
    return taylor_importance(stream, geometry, SEQUENCES, scratch=scratch, report=lambda done, total: None, **options)


@each_device
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("activation_bytes", [2**30, 1], ids=["one pass", "pass per sequence"])
def test_streamed_scores_are_those_of_a_full_backward_pass(
    tmp_path: Path, family: str, activation_bytes: int, device: str
) -> None:
    folder = save_tiny(family, tmp_path / "base")
    found, wanted = streamed(folder, tmp_path / "scratch", device, activation_bytes=activation_bytes), by_hand(folder)
    assert found.keys() == wanted.keys()
    for key, scores in wanted.items():
        assert scores.abs().sum() > 0, key
        torch.testing.assert_close(found[key], scores, rtol={"cpu": 1e-4, "cuda": 2e-3}[device], atol=1e-12)


@each_device
def test_scores_in_the_type_that_a_device_computes_in_are_in_the_same_order(tmp_path: Path, device: str) -> None:
    folder = save_tiny("llama", tmp_path / "base", dtype=torch.bfloat16)
    found, wanted = streamed(folder, tmp_path / "scratch", device, compute_dtype(device)), by_hand(folder)
    for key, scores in wanted.items():
        assert torch.corrcoef(torch.stack([found[key], scores]))[0, 1] > 0.99, key


def test_weights_stored_in_bf16_score_as_in_fp32(tmp_path: Path) -> None:
    folder = save_tiny("llama", tmp_path / "base", dtype=torch.bfloat16, max_shard_size="20KB")
    found, wanted = streamed(folder, tmp_path / "scratch"), by_hand(folder)
    for key, scores in wanted.items():
        torch.testing.assert_close(found[key], scores, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("logits_at_once", [1, 320 * 24 * 2, 2**25], ids=["one position", "two rows", "all"])
def test_gradient_of_the_loss_does_not_depend_on_how_many_logits_exist_at_once(
    tmp_path: Path, logits_at_once: int
) -> None:
    stream = LayerStream(save_tiny("gemma2", tmp_path), "cpu")
    hidden = torch.randn(5, 24, 32, requires_grad=True)
    with stream.head() as head:
        logits = head(SEQUENCES, hidden)[:, :-1].flatten(0, 1)
        loss = functional.cross_entropy(logits, SEQUENCES[:, 1:].flatten(), reduction="sum")
        (wanted,) = torch.autograd.grad(loss, hidden)
        found = loss_gradient(head, SEQUENCES, hidden.detach(), 320, logits_at_once)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_progress_counts_each_pass_through_each_layer_in_both_directions(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    seen: list[tuple[int, int]] = []
    taylor_importance(
        LayerStream(folder, "cpu"),
        geometry_of(read_config(folder)),
        SEQUENCES,
        scratch=tmp_path,
        report=lambda done, total: seen.append((done, total)),
        activation_bytes=1,
    )
    assert seen == [(done, 40) for done in range(1, 41)]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    folder = tiny_llama(tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.2.mlp.up_proj.weight"
    weights[name][3, 4] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestFault, match=rf"layer 2 .* {name}"):
        streamed(folder, tmp_path / "scratch")
