from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from publisher.checkpoint.masks import Masks
from publisher.checkpoint.recovery.methods.lora_placement import cut_tensor, recover_tensor
from tests.checkpoint.pruned import MASKS, make_pair, save_checkpoint, zero_removed
from tests.checkpoint.sparse import write_masks, zero_pruned
from tests.devices import each_device
from tests.models import tiny_llama
from worker.evaluation.fidelity import compare_gradients, gradient_fidelity, lora_gradients, random_adapters
from worker.models.causal import load_causal
from worker.probe.probe import with_lora
from worker.streaming.weights import read_geometry

WHOLE = Masks(MASKS.kinds, MASKS.kind_of, {}, MASKS.prefix)
NAME = "base_model.model.model.layers.{}.mlp.{}_proj.lora_{}.weight"


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 60, (6, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    make_pair().base.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def _gradient_of_weights(folder: Path, tokens: Tensor) -> dict[str, Tensor]:
    """By autograd, through transformers' own loss."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model(input_ids=tokens, labels=tokens).loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def test_gradient_by_b_is_that_by_the_weight_times_a(base: Path, tokens: Tensor) -> None:
    adapter = with_lora(load_causal(base, "cpu"), 4)
    adapters = random_adapters(adapter, seed=3)
    found = lora_gradients(adapter, tokens, adapters)
    by_weight = _gradient_of_weights(base, tokens)
    assert len(found) == 4 * 7
    for name, gradient in found.items():
        module = name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
        expected = by_weight[f"{module}.weight"] @ adapters[name.replace("lora_B", "lora_A")].T
        torch.testing.assert_close(gradient, 2 * expected, rtol=1e-3, atol=1e-5)  # PEFT scales by alpha / rank = 2


@each_device
def test_model_that_lost_nothing_has_fidelity_one(base: Path, tokens: Tensor, device: str) -> None:
    found = gradient_fidelity(base, base, WHOLE, tokens, device=device)
    near = {"cpu": 1e-6, "cuda": 1e-3}[device]
    assert found.mean == pytest.approx(1, abs=near)
    assert found.whole == pytest.approx(1, abs=near)
    assert found.layers == pytest.approx([1, 1, 1, 1], abs=near)


def test_another_random_model_has_fidelity_near_zero(tmp_path: Path, tokens: Tensor) -> None:
    one, other = (tiny_llama(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    geometry = read_geometry(one)
    masks = Masks(geometry.kinds, geometry.kind_of, {}, geometry.layer_prefix)
    found = gradient_fidelity(one, other, masks, tokens, rank=16)
    assert abs(found.mean) < 0.1
    assert abs(found.whole) < 0.1


def test_units_that_do_nothing_are_removed_without_loss_of_fidelity(base: Path, tmp_path: Path, tokens: Tensor) -> None:
    pair = make_pair()
    pruned = save_checkpoint(tmp_path / "pruned", pair.pruned)
    assert gradient_fidelity(base, pruned, MASKS, tokens).mean < 0.99
    zero_removed(pair.base)
    pair.base.save_pretrained(tmp_path / "zeroed")
    found = gradient_fidelity(tmp_path / "zeroed", pruned, MASKS, tokens)
    assert found.layers == pytest.approx([1, 1, 1, 1], abs=1e-6)


def test_single_weights_are_compared_where_they_were_kept(base: Path, tmp_path: Path, tokens: Tensor) -> None:
    """On one and the same model the masked gradients agree; on the pruned one they do not quite."""
    masks = write_masks(base, tmp_path / "masks.safetensors")
    assert gradient_fidelity(base, base, masks, tokens).mean == pytest.approx(1)
    make_pair().base.save_pretrained(tmp_path / "sparse")
    zero_pruned(tmp_path / "sparse", masks)
    assert 0 < gradient_fidelity(base, tmp_path / "sparse", masks, tokens).mean < 0.999


def test_cutting_undoes_recovery() -> None:
    generator = torch.Generator().manual_seed(0)
    for module, part, shape in (("up", "B", (6, 4)), ("down", "A", (4, 6)), ("up", "A", (4, 24))):
        tensor, name = torch.randn(shape, generator=generator), NAME.format(1, module, part)
        assert torch.equal(cut_tensor(name, recover_tensor(name, tensor, MASKS), MASKS), tensor)


def test_cosines_of_gradients_known_by_hand() -> None:
    names = [NAME.format(layer, "up", "B") for layer in (0, 2)]
    found = dict(zip(names, torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), strict=True))
    wanted = dict(zip(names, torch.tensor([[[3.0, 3.0]], [[0.0, 1.0]]]), strict=True))
    report = compare_gradients(found, wanted)
    assert report.layers == [pytest.approx(0.5**0.5), None, pytest.approx(1)]
    assert report.mean == pytest.approx((0.5**0.5 + 1) / 2)
    assert report.whole == pytest.approx((3 + 2) / (5**0.5 * 19**0.5))
    assert compare_gradients({names[0]: torch.zeros(1, 2)}, wanted).mean == 0
