"""An adapter method is one declaration: ones of the tests go through recovery with nothing else changed.

Their adapters are PEFT's own: IA3, which multiplies what a module gives by a vector, and prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel, PeftType, PromptTuningConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import KeptIndices, PruningMasks
from publisher.checkpoint.recovery import recover_adapter
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.method import (
    AdapterMethod,
    Change,
    Config,
    Update,
    everywhere,
    one_to_one,
)
from publisher.checkpoint.recovery.methods import METHODS, method_of, register
from publisher.checkpoint.recovery.naming import PEFT_PREFIX, Naming
from publisher.checkpoint.recovery.scatter import put_back
from publisher.errors import RequestFault
from publisher.weights.folder import StoredWeights
from publisher.weights.writing import Entry
from tests.checkpoint.pruned import MASKS, make_pair, save_checkpoint, zero_removed
from tests.checkpoint.recovery.test_merging import prepared

TOKENS = torch.arange(40).reshape(2, 20) % 64
_VECTOR = ".ia3_l"


def _nothing_to_refuse(config: Config) -> None:
    """IA3's options change where vectors stand, which PEFT's names and shapes tell."""


def _in_the_tensors(config: Config, strength: float) -> dict[str, Any]:
    """The vectors themselves are multiplied: no field of the config could say it."""
    return dict(config)


def _weight(name: str) -> str:
    return f"{name.removesuffix(_VECTOR)}.weight"


def _kept_rows(name: str, masks: PruningMasks) -> KeptIndices | None:
    found = masks.parameter(_weight(name))
    return None if found is None else found.along(0)


def _wide_vector(adapter: Adapter, masks: PruningMasks, name: str, vector: Tensor) -> Tensor:
    """(out, 1): 1 where the checkpoint has no such row, the strength in the others' distance from 1."""
    kept, stronger = _kept_rows(name, masks), 1 + adapter.strength * (vector - 1)
    return stronger if kept is None else put_back(stronger, kept, 0, fill=1)


def _as_vectors(adapter: Adapter, masks: PruningMasks) -> Update:
    def shape(name: str, found: Shape) -> Shape:
        kept = _kept_rows(name, masks)
        return found if kept is None else (kept.full, *found[1:])

    return one_to_one(adapter, shape, partial(_wide_vector, adapter, masks))


def _as_changes(adapter: Adapter, masks: PruningMasks) -> Iterator[Change]:
    for name in adapter.tensors.updates:
        vector = _wide_vector(adapter, masks, name, adapter.tensors.read(name))
        weight = _weight(name).removeprefix(PEFT_PREFIX)
        yield Change(name, weight, (len(vector), None), partial(_multiplied, vector, masks.mask_of(weight)))


def _multiplied(vector: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    changed = weight * vector.to(weight)
    return changed if mask is None else torch.where(mask, changed, weight)


def _as_lora(adapter: Adapter, masks: PruningMasks) -> Update:
    """The realised change of each matrix of the checkpoint, (l - 1) W, as a LoRA of full rank, which is exact."""
    assert adapter.whole is not None
    factors = {}
    for name in adapter.tensors.updates:
        module, kept = name.removesuffix(_VECTOR), _kept_rows(name, masks)
        weight = adapter.whole.origins.checkpoint.read(_weight(name).removeprefix(PEFT_PREFIX))
        left, values, right = torch.linalg.svd((adapter.tensors.read(name) - 1) * weight, full_matrices=False)
        left = left * values
        factors[f"{module}.lora_A.weight"] = _to_rank(right, 0)
        factors[f"{module}.lora_B.weight"] = _to_rank(left if kept is None else put_back(left, kept, 0), 1)
    entries = [Entry(name, "F64", tuple(factor.shape)) for name, factor in factors.items()]
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 24, "lora_alpha": 24}
    return Update(entries, factors.__getitem__, config | {"target_modules": adapter.config["target_modules"]})


def _to_rank(factor: Tensor, axis: int, rank: int = 24) -> Tensor:
    missing = [*factor.shape]
    missing[axis] = rank - factor.shape[axis]
    return torch.cat([factor, factor.new_zeros(missing)], axis).contiguous()


def _trained_nowhere(tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
    return {name.removesuffix(_VECTOR) for name, vector in tensors if bool((vector == 1).all())}


VECTORS = AdapterMethod(
    peft_type="IA3",
    title="IA3",
    naming=Naming((".ia3_",)),
    refuse=_nothing_to_refuse,
    scale=_in_the_tensors,
    recover=_as_vectors,
    merge=_as_changes,
    idle=_trained_nowhere,
    idle_as="l = 1",
)


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The register without what it may know of the tests' methods."""
    for peft_type in ("IA3", "PROMPT_TUNING"):
        monkeypatch.delitem(METHODS, peft_type)


def _vectors_on(model: PreTrainedModel, folder: Path) -> PeftModel:
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj", "up_proj"], feedforward_modules=[])
    tuned = get_peft_model(model, config, autocast_adapter_dtype=False).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in tuned.named_parameters():
        if _VECTOR in name:
            parameter.data = 1 + torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    tuned.save_pretrained(folder)
    return tuned


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("recover", [_as_vectors, _as_lora], ids=["scattered", "realised"])
def test_method_that_a_test_declares_is_recovered_as_an_adapter(tmp_path: Path, recover: Any) -> None:
    register(replace(VECTORS, recover=recover))
    pair = make_pair()
    tuned = _vectors_on(pair.pruned, tmp_path / "adapter")
    expected = tuned(TOKENS).logits
    checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)

    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model="org/base")
    zero_removed(pair.base)
    recovered = PeftModel.from_pretrained(pair.base, str(tmp_path / "out"), autocast_adapter_dtype=False)

    torch.testing.assert_close(recovered(TOKENS).logits, expected, rtol=0, atol=1e-9)
    assert not report.merged
    assert recovered.peft_config["default"].peft_type == (PeftType.IA3 if recover is _as_vectors else PeftType.LORA)
    assert recovered.peft_config["default"].base_model_name_or_path == "org/base"


@pytest.mark.usefixtures("declared")
def test_method_without_an_adapter_for_the_base_model_is_merged_into_it(tmp_path: Path) -> None:
    register(replace(VECTORS, recover=None))
    pair = make_pair()
    pair.base.save_pretrained(tmp_path / "base")
    _vectors_on(pair.pruned, tmp_path / "adapter")
    checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    with pytest.raises(RequestFault, match="IA3 is no stock adapter but has to be merged"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model="org/base")

    report = recover_adapter(
        tmp_path / "adapter", checkpoint, tmp_path / "out", base_model=str(tmp_path / "base"), strength=1.5
    )

    assert report.merged
    base, merged = (StoredWeights(tmp_path / folder) for folder in ("base", "out"))
    vectors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for weight in base.entries:
        vector = vectors.get(f"{PEFT_PREFIX}{weight.removesuffix('.weight')}{_VECTOR}")
        expected = base.read(weight).clone()
        if vector is not None:
            found = MASKS.parameter(weight)
            rows = found.along(0) if found is not None else None
            index = torch.arange(len(expected)) if rows is None else rows.indices
            expected[index] *= 1 + 1.5 * (vector - 1)
        torch.testing.assert_close(merged.read(weight), expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("declared")
def test_where_single_weights_were_pruned_a_declared_method_changes_kept_ones_alone(tmp_path: Path) -> None:
    register(VECTORS)
    base, checkpoint = prepared(tmp_path)
    _vectors_on(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "adapter")
    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model=str(base))
    assert report.merged
    before, after, pruned = (StoredWeights(folder) for folder in (base, tmp_path / "out", checkpoint))
    weight = "model.layers.1.mlp.up_proj.weight"
    changed = before.read(weight) != after.read(weight)
    assert torch.equal(changed, pruned.read(weight) != 0)
    assert torch.equal(before.read("lm_head.weight"), after.read("lm_head.weight"))


@pytest.mark.usefixtures("declared")
def test_untrained_adapter_of_a_declared_method_is_said_in_its_words(tmp_path: Path) -> None:
    register(VECTORS)
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
    get_peft_model(make_pair().pruned, config).save_pretrained(tmp_path / "adapter")
    checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    notes = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model="org/base").notes
    assert any("not trained: every update in it is zero (l = 1)" in note for note in notes)


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("single_weights", [False, True])
def test_what_no_mask_touches_passes_through_bit_by_bit(tmp_path: Path, single_weights: bool) -> None:
    """Prompts are of the hidden size, which pruning leaves; also where updates of matrices have to be merged."""
    register(
        AdapterMethod(
            peft_type="PROMPT_TUNING",
            title="prompt tuning",
            naming=Naming(("prompt_embeddings",)),
            refuse=_nothing_to_refuse,
            scale=_in_the_tensors,
            recover=lambda adapter, masks: one_to_one(adapter, lambda name, shape: shape, lambda name, tensor: tensor),
            stays_adapter=everywhere,
        )
    )
    if single_weights:
        _, checkpoint = prepared(tmp_path)
    else:
        checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), config).save_pretrained(tmp_path / "adapter")

    report = recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model="org/base")

    assert not report.merged
    before, after = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("adapter", "out"))
    assert before.keys() == after.keys() == {"prompt_embeddings"}
    assert torch.equal(before["prompt_embeddings"], after["prompt_embeddings"])


@pytest.mark.usefixtures("declared")
def test_adapter_whose_method_cannot_end_as_the_masks_need_is_refused_by_name(tmp_path: Path) -> None:
    register(replace(VECTORS, merge=None))
    base, checkpoint = prepared(tmp_path, LlamaConfig(**make_pair().base.config.to_dict()))
    _vectors_on(AutoModelForCausalLM.from_pretrained(checkpoint), tmp_path / "adapter")
    with pytest.raises(RequestFault, match="trained with IA3 cannot be merged into the base model"):
        recover_adapter(tmp_path / "adapter", checkpoint, tmp_path / "out", base_model=str(base))
    assert not (tmp_path / "out").exists()


def test_peft_type_that_is_taken_and_a_method_without_an_end_are_not_registered() -> None:
    with pytest.raises(ValueError, match="LORA has a recovery already, as LoRA"):
        register(replace(VECTORS, peft_type="LORA"))
    with pytest.raises(ValueError, match="IA3X can be neither"):
        register(replace(VECTORS, peft_type="IA3X", recover=None, merge=None))
    assert "IA3X" not in METHODS


@pytest.mark.parametrize("peft_type", [key for key, method in METHODS.items() if not method.variant and key != "BONE"])
def test_registered_method_is_one_of_pefts_and_found_by_its_type(peft_type: str) -> None:
    known = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(peft_type)].__dataclass_fields__
    method = method_of({"peft_type": peft_type})
    assert method is METHODS[peft_type]
    assert method.trained.keys() <= known.keys()
