from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from publisher.checkpoint.masks import Masks, load_masks
from publisher.checkpoint.recovery import recover_state
from tests.worker.alignment.builds import prepare
from worker.alignment.gradient_matching import GradientMatching
from worker.alignment.reference_adapter import ReferenceAdapter
from worker.alignment.rounding import nf4_rounding
from worker.models.causal import load_causal
from worker.probe.probe import linear_layers
from worker.training.batch_loss import DistillationTerms

CPU = torch.device("cpu")
BATCH = torch.randint(0, 256, (2, 64), generator=torch.Generator().manual_seed(5), dtype=torch.int32)
PREFIX = "base_model.model."


def _models(folder: Path) -> tuple[PreTrainedModel, PreTrainedModel, Masks]:
    inputs = prepare(folder, dropout=0)
    model, base = (load_causal(path, CPU, torch.float32) for path in (inputs.pruned, inputs.base))
    model.get_output_embeddings().requires_grad_(False)
    return model.train(), base.requires_grad_(False), load_masks(inputs.masks)


def _adapter(model: PreTrainedModel, base: PreTrainedModel, masks: Masks, steps: int) -> ReferenceAdapter:
    weights = {f"{name}.weight": layer.weight for name, layer in linear_layers(model).items()}
    layers = {f"{name}.weight": layer for name, layer in linear_layers(base).items()}
    return ReferenceAdapter(weights, layers, masks, steps)


def _learnt(reference: ReferenceAdapter, model: PreTrainedModel, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"{name}.weight": layer.weight.shape for name, layer in linear_layers(model).items()}
    reference.learn({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})
    reference.advance()


def _logits(model: torch.nn.Module) -> Tensor:
    logits: Tensor = model(BATCH.long()).logits
    return logits


def _worn(reference: ReferenceAdapter) -> dict[str, Tensor]:
    """As PEFT would save it."""
    found = {}
    for part, tensors in {"A": reference._a, "B": reference._b}.items():
        for name, tensor in tensors.items():
            found[f"{PREFIX}{name.removesuffix('.weight')}.lora_{part}.weight"] = tensor
    return found


def _with_peft(model: PreTrainedModel, state: Mapping[str, Tensor]) -> torch.nn.Module:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=list(linear_layers(model)), task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    assert not set_peft_model_state_dict(adapted, dict(state)).unexpected_keys
    return adapted.eval()


def test_both_models_wear_one_adapter_which_is_recovered_on_the_base_model(tmp_path: Path) -> None:
    model, base, masks = _models(tmp_path)
    reference = _adapter(model, base, masks, steps=3)
    reference.put_on()
    _learnt(reference, model)
    state = {name: tensor.clone() for name, tensor in _worn(reference).items()}
    alone = _logits(base)
    with torch.no_grad(), reference.on_base():
        on_base = _logits(base)
    assert torch.equal(_logits(base), alone)
    reference.put_on()
    on_model = _logits(model.eval())
    fresh, fresh_base, _ = _models(tmp_path)
    torch.testing.assert_close(on_model, _logits(_with_peft(fresh, state)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        on_base, _logits(_with_peft(fresh_base, recover_state(state, masks))), rtol=1e-4, atol=1e-5
    )
    assert float((on_base - alone).abs().max()) > 1e-4


def test_after_so_many_batches_another_adapter_starts_untrained(tmp_path: Path) -> None:
    model, base, masks = _models(tmp_path)
    reference, worn, first = _adapter(model, base, masks, steps=2), [], []
    for batch in range(5):
        before = {name: layer.weight.clone() for name, layer in linear_layers(model).items()}
        reference.put_on()
        worn.append(any(not torch.equal(layer.weight, before[name]) for name, layer in linear_layers(model).items()))
        first.append(next(iter(reference._a.values())).clone())
        _learnt(reference, model, batch)
    assert worn == [False, True, False, True, False]
    assert [torch.equal(first[batch], first[batch + 1]) for batch in range(4)] == [True, False, True, False]


def test_it_learns_by_the_base_model_s_gradients_what_lowers_its_loss(tmp_path: Path) -> None:
    model, base, masks = _models(tmp_path)
    matching = GradientMatching(model, base, masks, DistillationTerms(), 1.0, practice=100)
    rounding = nf4_rounding(model, set(), matching.moved)
    losses = []
    for _ in range(8):
        with rounding.rounded():
            matching.accumulate(BATCH, lambda: None)
        assert matching._reference is not None
        with torch.no_grad(), matching._reference.on_base():
            logits = _logits(base)[:, :-1]
            losses.append(float(functional.cross_entropy(logits.flatten(0, 1), BATCH[:, 1:].flatten().long())))
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("batches", [2, 3, 4])
def test_it_goes_on_where_it_was(tmp_path: Path, batches: int) -> None:
    """In the middle of an adapter's way, and where another starts."""
    model, base, masks = _models(tmp_path)
    reference = _adapter(model, base, masks, steps=3)
    for batch in range(batches):
        reference.put_on()
        _learnt(reference, model, batch)
    resumed = _adapter(model, base, masks, steps=3)
    resumed.restore({name: tensor.clone() for name, tensor in reference.state().items()} | {"weights.x": torch.ones(1)})
    for batch in range(batches, batches + 3):
        for each in (reference, resumed):
            each.put_on()
            _learnt(each, model, batch)
        assert reference.state().keys() == resumed.state().keys()
        assert all(torch.equal(tensor, resumed.state()[name]) for name, tensor in reference.state().items())
