"""Bone's files, which today's PEFT does not make: the oracle is its formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from publisher.checkpoint.recovery import recover_adapter
from publisher.weights.folder import StoredWeights
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error, folders

MODULES = ("self_attn.q_proj", "mlp.down_proj")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders(LlamaConfig(**SIZES), tmp_path_factory.mktemp("bone"), aligned=True)


def saved(folder: Path, blocks: dict[str, Tensor], **config: Any) -> Path:
    """As PEFT 0.15 to 0.18 wrote it."""
    folder.mkdir()
    said = {"peft_type": "BONE", "task_type": "CAUSAL_LM", "r": 2, "bias": "none", "init_weights": True}
    text = json.dumps(said | {"target_modules": ["q_proj", "down_proj"], "inference_mode": True} | config)
    (folder / "adapter_config.json").write_text(text)
    names = {f"base_model.model.{module}.bone_block": block for module, block in blocks.items()}
    save_file(names, folder / "adapter_model.safetensors")
    return folder


def modules(given: Folders) -> dict[str, Tensor]:
    weights = StoredWeights(given.checkpoint)
    names = [f"model.layers.{layer}.{module}" for layer in (0, 1) for module in MODULES]
    return {name: weights.read(f"{name}.weight") for name in names}


def repeated(block: Tensor, weight: Tensor) -> Tensor:
    """ΔW[o, i] = block[i mod r, o] (arXiv 2409.15371, equation 4)."""
    return block.T[:, torch.arange(weight.shape[1]) % len(block)]


def woven(block: Tensor, weight: Tensor) -> Tensor:
    """Row- and column-blocks of r: ΔW_ij = W_ij B_i + B_i (Bat)."""
    rank, change = block.shape[-1], torch.empty_like(weight)
    for i, own in enumerate(block):
        for j in range(weight.shape[1] // rank):
            place = slice(i * rank, (i + 1) * rank), slice(j * rank, (j + 1) * rank)
            change[place] = weight[place] @ own + own
    return change


@pytest.mark.parametrize("bat", [False, True], ids=["bone", "bat"])
def test_block_is_read_as_its_formula_says(tmp_path: Path, given: Folders, bat: bool) -> None:
    torch.manual_seed(3)
    weights = modules(given)
    blocks = {
        name: torch.randn(len(weight) // 2, 2, 2) if bat else torch.randn(2, len(weight))
        for name, weight in weights.items()
    }
    adapter = saved(tmp_path / "adapter", blocks, init_weights="bat" if bat else True)
    options: dict[str, Any] = {"base_model": str(given.base)}
    report = recover_adapter(adapter, given.checkpoint, tmp_path / "out", rank=24, **options)
    recover_adapter(adapter, given.checkpoint, tmp_path / "merged", merge=True, **options)

    expected = {name: torch.zeros_like(tensor) for name, tensor in given.base_model().state_dict().items()}
    for name, weight in weights.items():
        path = f"{name}.weight"
        expected[path] = given.scattered(path, (woven if bat else repeated)(blocks[name], weight))
    assert error(given.recovered(tmp_path / "out"), expected) < 2e-6
    assert error(given.merged(tmp_path / "merged"), expected) < 2e-6
    assert any("depends on the weights" in note for note in report.notes) is bat


def test_without_a_rank_a_repeated_block_is_a_lora_of_its_own_rank(tmp_path: Path, given: Folders) -> None:
    torch.manual_seed(3)
    blocks = {name: torch.randn(2, len(weight)) for name, weight in modules(given).items()}
    report = recover_adapter(
        saved(tmp_path / "adapter", blocks), given.checkpoint, tmp_path / "out", base_model=str(given.base), strict=True
    )
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == 2
    assert any("rank 2" in note and "leaves out 0%" in note for note in report.notes)
