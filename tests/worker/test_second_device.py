"""The whole pipeline on a device whose tensors refuse to meet the CPU's (tests/second_device).

What fails here with "Expected all tensors to be on the same device" would fail on the first GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.errors import JobCancelled
from publisher.recipe import Optimizer, Recipe
from publisher.recipe.stages import Stage
from tests.models import tiny_llama
from tests.second_device import second_device
from tests.worker.alignment import builds
from tests.worker.stages.building import prose, request_for
from worker.context import RecordingContext
from worker.evaluation.held_out_text import held_out_documents
from worker.evaluation.perplexity import cut_windows, perplexity
from worker.models.causal import load_causal
from worker.models.measure import peak_memory
from worker.stages.align import stage as align
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from worker.streaming.model import LayerStream
from worker.text.tokenizer import load_tokenizer

PRUNING: dict[str, Any] = {
    "criterion": "taylor",
    "ratio": 0.5,
    "protect_first": 1,
    "protect_last": 1,
    "calibration": {"corpus": "prose", "samples": 2, "sequence_length": 32},
}
ALIGNMENT: dict[str, Any] = {
    "corpora": [{"name": "prose"}],
    "tokens": 64,
    "batch_tokens": 64,
    "sequence_length": 32,
}
EVALUATION: dict[str, Any] = {
    "corpora": ["prose"],
    "tokens": 64,
    "sequence_length": 32,
    "probe_budget": {"steps": 1, "batch_size": 1, "sequence_length": 64},
}


@pytest.fixture
def device() -> Iterator[torch.device]:
    with second_device() as device:
        yield device


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, of which the middle one is pruned, and a corpus beside them."""
    folder = tmp_path_factory.mktemp("second_device")
    tiny_llama(folder / "base", num_hidden_layers=3)
    prose(folder / "prose.jsonl", 8)
    return folder / "base"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StageStore:
    return StageStore(tmp_path_factory.mktemp("store"))


def _built(base: Path, store: StageStore, device: torch.device, until: Stage, **recipe: Any) -> Path:
    parts = {"pruning": PRUNING, "alignment": ALIGNMENT | {"reconstruction_tokens": 0}, "evaluation": EVALUATION}
    request = request_for(base, base.parent / "prose.jsonl", Recipe.model_validate(parts | recipe))
    folders = run_pipeline(replace(request, device=str(device)), store, lambda _: RecordingContext(), until=until)
    return folders[until]


MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sum": lambda there, here: there + here,
    "sum into the CPU's": lambda there, here: here.add_(there),
    "sum into a number of the CPU": lambda there, here: here.sum().add_(there.sum()),
    "product": lambda there, here: there @ here,
    "joined": lambda there, here: torch.cat([there, here]),
    "rows": lambda there, here: there.index_select(0, torch.tensor([0])),
    "indexed by it": lambda there, here: here[torch.tensor([0], device=there.device)],
    "masked": lambda there, here: there.masked_fill(here > 0, 0.0),
    "loss": lambda there, here: torch.nn.functional.cross_entropy(there, torch.tensor([0, 1])),
    "drawn": lambda there, here: torch.rand(2, device=there.device, generator=torch.Generator()),
    "to numpy": lambda there, here: there.numpy(),
}


@pytest.mark.parametrize("meets", MIXED.values(), ids=MIXED)
def test_tensors_of_two_devices_refuse_to_meet(device: torch.device, meets: Callable[[Tensor, Tensor], object]) -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2, device=device)
    with pytest.raises((RuntimeError, TypeError), match=r"same device|on cpu|device type"):
        meets(there, here)


def test_copies_numbers_and_indices_of_the_cpu_are_let_through(device: torch.device) -> None:
    there = torch.arange(4.0, device=device)
    assert (there * torch.tensor(2.0))[torch.tensor([1, 3])].tolist() == [2, 6]
    there[1:3].copy_(torch.tensor([7.0, 8.0]))
    assert there.cpu().tolist() == [0, 7, 8, 3]


def test_its_gradients_are_the_cpu_s(device: torch.device) -> None:
    """Through a view that is written to, too."""

    def gradient(device: torch.device | str) -> Tensor:
        leaf = torch.arange(12.0).view(3, 4).to(device).requires_grad_()
        product = leaf * 2
        product[:, 1:3] = leaf[:, 2:].square()
        (product.T @ product).logsumexp(0).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.cpu()

    assert torch.equal(gradient(device), gradient("cpu"))


def test_a_layer_at_a_time_gives_the_logits_of_the_cpu(base: Path, device: torch.device) -> None:
    tokens = torch.arange(24).view(2, 12)
    found = LayerStream(base, device).streamed_logits(tokens)
    torch.testing.assert_close(found.cpu(), LayerStream(base, "cpu").streamed_logits(tokens))


def test_a_checkpoint_is_made_and_certified(base: Path, store: StageStore, device: torch.device) -> None:
    """Every stage with the recipe's defaults: solved for, rounded, gradients matched with practice, probed."""
    alignment = ALIGNMENT | {"reconstruction_tokens": 64, "practice_steps": 1}
    folder = _built(base, store, device, Stage.EVALUATE, alignment=alignment)
    report = json.loads((folder / "evaluation.json").read_text())
    assert report["certificate"]["direct"] is not None
    assert report["gradient_fidelity"]["mean"] > 0
    windows = cut_windows(held_out_documents(_prose(base)), load_tokenizer(base), 32, 64, None)
    on_cpu = perplexity(load_causal(base, "cpu"), windows, lambda _: None)
    assert report["perplexity"]["prose"]["base"] == pytest.approx(on_cpu, rel=0.05)  # bf16 there, fp32 here


def _prose(base: Path) -> Any:
    recipe = Recipe.model_validate({"pruning": PRUNING})
    return request_for(base, base.parent / "prose.jsonl", recipe).corpora["prose"]


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_single_weights_are_pruned_and_stay_zero(
    base: Path, store: StageStore, device: torch.device, criterion: str
) -> None:
    pruning = PRUNING | {"method": "semi_structured", "criterion": criterion}
    folder = _built(base, store, device, Stage.ALIGN, pruning=pruning)
    weight = load_file(folder / "model" / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    assert (weight.view(-1, 4) == 0).sum(1).eq(2).all()


OBJECTIVES: dict[str, dict[str, Any]] = {
    "words": {"objective": "language_model"},
    "kept words of the teacher": {"teacher_top_k": 8, "gradient_matching": 0},
    "states and words": {"hidden_states_weight": 0.5, "language_model_share": 0.3, "activation_checkpointing": True},
    "low rank": {"trainable": "low_rank", "rank": 4, "stop": "held_out", "checks": 1},
}


@pytest.mark.parametrize("alignment", OBJECTIVES.values(), ids=OBJECTIVES)
def test_it_is_aligned_by(base: Path, store: StageStore, device: torch.device, alignment: dict[str, Any]) -> None:
    whole = ALIGNMENT | {"reconstruction_tokens": 0} | alignment
    folder = _built(base, store, device, Stage.ALIGN, alignment=whole)
    assert (folder / "model" / "model.safetensors").exists()


#: torch's own, and one that draws from a generator of its own
_SHORT = (Optimizer.ADAMW, Optimizer.APOLLO_ADAMW)


@pytest.mark.parametrize(
    "optimizer", [pytest.param(name, marks=[] if name in _SHORT else [pytest.mark.long]) for name in Optimizer]
)
def test_alignment_that_was_cut_goes_on_to_the_same_bits(
    tmp_path: Path, device: torch.device, optimizer: Optimizer
) -> None:
    """With dropout, whose chance is the device's own."""
    inputs = builds.prepare(tmp_path)
    alignment = {"optimizer": optimizer, "rank": 4, "objective": "language_model", "tokens": 2 * builds.BATCH_TOKENS}
    request = replace(builds.request(tmp_path, **alignment), device=str(device))
    align.run(request, inputs, tmp_path / "whole", RecordingContext())
    with pytest.raises(JobCancelled):
        align.run(request, inputs, tmp_path / "cut", builds.CancellingContext(steps=1))
    torch.manual_seed(3)
    align.run(request, inputs, tmp_path / "cut", RecordingContext())
    whole, cut = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []


def test_what_work_took_is_asked_of_the_device(device: torch.device) -> None:
    with peak_memory(device) as peak:
        torch.zeros(100, device=device)
    assert peak.bytes == 400
