"""Where single weights were pruned: whatever was trained, its change of kept weights is merged into the base model, or
made a LoRA whose error is the best of its rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen3MoeConfig

from publisher.checkpoint.compression import compress_folder
from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.weight_masks import WeightMasks
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from tests.checkpoint.pruned import manifest
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error
from tests.checkpoint.recovery.methods.peft_configs import UPDATES, method_key, tuned
from tests.checkpoint.recovery.test_merging import prepared, trained
from tests.checkpoint.test_masked import SIZES as SPARSE

#: one of each kind that a short run holds; all others are long
SHORT = ("LORA", "LORA use_dora", "LOHA", "OFT", "VERA", "SHIRA", "ROAD")
MASKS = "pruning_masks.safetensors"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folders, WeightMasks]:
    config = Qwen2Config(**SIZES | {"num_hidden_layers": 3})
    base, checkpoint = prepared(tmp_path_factory.mktemp("single"), config, torch.float32)
    masks = WeightMasks(checkpoint / MASKS)
    return Folders(base, checkpoint, masks), masks  # type: ignore[arg-type]


def masked(masks: WeightMasks, change: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * masks.mask(name) if name in masks else tensor for name, tensor in change.items()}


def change_of(given: Folders, adapted: Any) -> dict[str, Tensor]:
    before = {name: tensor.clone() for name, tensor in given.trainable().state_dict().items()}
    after = adapted.merge_and_unload().state_dict()
    return {name: after[name] - tensor for name, tensor in before.items()}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in SHORT else [pytest.mark.long]) for case in UPDATES]
)
def test_change_of_kept_weights_is_merged_and_its_lora_is_the_nearest(
    tmp_path: Path, given: tuple[Folders, WeightMasks], record_property: Callable[[str, object], None], case: str
) -> None:
    folders, masks = given
    adapted = tuned(folders.trainable(), case)
    adapted.save_pretrained(tmp_path / "adapter")
    expected = masked(masks, change_of(folders, adapted))
    options: dict[str, Any] = {"base_model": str(folders.base), "force": True}
    report = recover_adapter(tmp_path / "adapter", folders.checkpoint, tmp_path / "merged", **options)
    assert report.merged
    if method_key(case) == "IA3":  # it multiplies the base model's own weights, of which the kept are the checkpoint's
        expected = {name: t for name, t in expected.items() if "o_proj" not in name}
    found = {name: t for name, t in folders.merged(tmp_path / "merged").items() if name in expected}
    record_property("error", error(found, expected))
    assert error(found, expected) < 2e-6

    recover_adapter(tmp_path / "adapter", folders.checkpoint, tmp_path / "lora", rank=3, **options)
    lora = folders.recovered(tmp_path / "lora")
    for name, change in expected.items():
        if change.ndim == 2 and "layers" in name:
            best = float(torch.linalg.svdvals(change.double())[3:].norm())
            assert float((lora[name] - change).norm()) == pytest.approx(best, rel=1e-3, abs=1e-4)


def test_weights_that_are_stored_compressed_give_the_same_change(
    tmp_path: Path, given: tuple[Folders, WeightMasks]
) -> None:
    folders, masks = given
    (tmp_path / "compressed").mkdir()
    compress_folder(folders.checkpoint, masks, tmp_path / "compressed")
    manifest(tmp_path / "compressed", "org/base", "c" * 40).write(tmp_path / "compressed")
    tuned(folders.trainable(), "LORA use_dora").save_pretrained(tmp_path / "adapter")
    options: dict[str, Any] = {"base_model": str(folders.base), "force": True}
    recover_adapter(tmp_path / "adapter", folders.checkpoint, tmp_path / "dense", **options)
    recover_adapter(tmp_path / "adapter", tmp_path / "compressed", tmp_path / "out", **options)
    dense, out = StoredWeights(tmp_path / "dense"), StoredWeights(tmp_path / "out")
    assert all(torch.equal(dense.read(name), out.read(name)) for name in dense.entries)


def test_trained_router_is_merged_and_experts_are_refused_by_name(tmp_path: Path) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    base, checkpoint = prepared(tmp_path, Qwen3MoeConfig(**SPARSE, **experts))
    router = {"target_modules": [], "target_parameters": ["mlp.gate.weight"]}
    trained(checkpoint, tmp_path / "adapter", masked=False, **router)
    options: dict[str, Any] = {"base_model": str(base), "force": True}  # the tests' manifest counts no experts
    recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "merged", **options)
    before, after = StoredWeights(base), StoredWeights(tmp_path / "merged")
    moved = {name for name in before.entries if not torch.equal(before.read(name), after.read(name))}
    assert {name.rpartition("layers.")[2].partition(".")[2] for name in moved} == {"mlp.gate.weight"}
    stacked = {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]}
    trained(checkpoint, tmp_path / "experts", masked=False, **stacked)
    with pytest.raises(RequestFault, match="experts"):
        recover_adapter(tmp_path / "experts", checkpoint, tmp_path / "out", **options)
