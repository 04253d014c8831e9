"""BEFT's vectors and Poly's skills: what a module gives beyond the base model's weights is the same at kept rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, PolyConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, Qwen2Config

from publisher.checkpoint.recovery import recover_adapter
from publisher.errors import RequestFault
from tests.checkpoint.recovery.methods.oracle import SIZES, Folders, error, folders
from tests.checkpoint.recovery.methods.peft_configs import PROJECTIONS
from tests.checkpoint.recovery.methods.test_outside import trained

TOKENS = torch.arange(40).reshape(2, 20) % 64


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return folders(Qwen2Config(**SIZES), tmp_path_factory.mktemp("biased"), aligned=True)


def test_vectors_that_are_added_to_biases_are_put_back_at_kept_rows(tmp_path: Path, biased: Folders) -> None:
    adapted = trained(biased, tmp_path / "adapter", "BEFT", target_modules=["q_proj", "v_proj"])
    expected = biased.expected(adapted)
    options = {"base_model": str(biased.base)}
    recover_adapter(tmp_path / "adapter", biased.checkpoint, tmp_path / "out", **options)
    recover_adapter(tmp_path / "adapter", biased.checkpoint, tmp_path / "merged", merge=True, **options)
    recover_adapter(tmp_path / "adapter", biased.checkpoint, tmp_path / "double", strength=2.0, **options)
    double = {name: 2 * change for name, change in expected.items()}
    assert error(biased.recovered(tmp_path / "out"), expected) < 2e-6
    assert error(biased.merged(tmp_path / "merged"), expected) < 2e-6
    assert error(biased.recovered(tmp_path / "double"), double) < 2e-6


def test_vectors_of_modules_without_a_bias_stay_an_adapter_and_cannot_be_merged(tmp_path: Path) -> None:
    given = folders(LlamaConfig(**SIZES), tmp_path, aligned=False)
    trained(given, tmp_path / "adapter", "BEFT", target_modules=["v_proj"])
    options = {"base_model": str(given.base)}
    recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "out", **options)
    assert {tuple(vector.shape) for vector in load_file(tmp_path / "out/adapter_model.safetensors").values()} == {
        (1, 12)
    }
    with pytest.raises(RequestFault, match=r"no model\.layers\.0\.self_attn\.v_proj\.bias to merge it into"):
        recover_adapter(tmp_path / "adapter", given.checkpoint, tmp_path / "merged", merge=True, **options)


def _outputs(model: PeftModel, tasks: Tensor) -> dict[str, Tensor]:
    """What each adapted module of the pruned layer adds to its base layer's output, for the same inputs."""
    found = {}
    for name, module in model.named_modules():
        if name.endswith(("layers.1.self_attn.k_proj", "layers.1.mlp.up_proj")):
            given = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(4))
            found[name] = module(given, task_ids=tasks) - module.base_layer(given)
    return found


@pytest.mark.parametrize("tasks", [[0, 1], [1, 1]])
def test_skills_give_the_same_at_kept_rows_and_nothing_elsewhere(
    tmp_path: Path, biased: Folders, tasks: list[int]
) -> None:
    config = PolyConfig(task_type="CAUSAL_LM", target_modules=PROJECTIONS, r=2, n_tasks=2, n_skills=2, n_splits=1)
    adapted = get_peft_model(biased.trainable(), config).eval()
    for parameter in adapted.parameters():
        parameter.data += 0.1 * parameter.requires_grad
    adapted.save_pretrained(tmp_path / "adapter")
    recover_adapter(tmp_path / "adapter", biased.checkpoint, tmp_path / "out", base_model=str(biased.base))
    recovered = PeftModel.from_pretrained(biased.base_model(), str(tmp_path / "out")).eval()
    small, large = (_outputs(model, torch.tensor(tasks)) for model in (adapted, recovered))
    assert small.keys() == large.keys() != set()
    for name, output in small.items():
        path = f"{name.removeprefix('base_model.model.')}.weight"
        whole = biased.scattered(path, output.flatten(0, 1).T).T.reshape(large[name].shape)
        torch.testing.assert_close(large[name], whole, rtol=0, atol=1e-5)


def test_skills_in_splits_are_refused(tmp_path: Path, biased: Folders) -> None:
    config = PolyConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2, n_tasks=2, n_skills=2, n_splits=2)
    get_peft_model(biased.trainable(), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(RequestFault, match="n_splits=2"):
        recover_adapter(tmp_path / "adapter", biased.checkpoint, tmp_path / "out", base_model=str(biased.base))
