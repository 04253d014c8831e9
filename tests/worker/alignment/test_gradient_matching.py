from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedModel

from publisher.checkpoint.masks import Masks, load_masks
from publisher.corpus.source import Split
from publisher.errors import JobCancelled, RequestFault
from publisher.plan.choices import gradient_matching_of
from publisher.plan.several import refuse_for_several
from publisher.recipe import Recipe
from tests.devices import each_device
from tests.worker.alignment.builds import LENGTH, STEPS, CancellingContext, prepare, request
from worker.alignment.gradient_matching import GradientMatching
from worker.alignment.rounding import nf4_rounding
from worker.alignment.state import load_state
from worker.alignment.trainable import checkpoint_activations
from worker.context import RecordingContext
from worker.families.pair import pruned_pair
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.stages.align import stage as align
from worker.text.packing import pack_tokens
from worker.training.batch_loss import Distillation, DistillationTerms, accumulate_gradients, rows_at_once
from worker.training.teacher import LoadedBase

CPU = torch.device("cpu")
WEIGHT = 0.7
TERMS = DistillationTerms(temperature=2.0, language_model_share=0.3, hidden_states_weight=0.5)
#: rows that take several parts of 512 tokens
BATCH = torch.randint(0, 256, (3, 300), generator=torch.Generator().manual_seed(5), dtype=torch.int32)


def _models(folder: Path, *, dropout: float = 0) -> tuple[PreTrainedModel, PreTrainedModel, Masks]:
    """Pruned and base, in training and in inference mode. Attention in plain operations, which can be differentiated
    twice, and draw the same dropout whatever is differentiated."""
    inputs = prepare(folder, dropout=dropout)
    model, base = (load_causal(path, CPU, torch.float32) for path in (inputs.pruned, inputs.base))
    model.get_output_embeddings().requires_grad_(False)
    for each in (model, base):
        each.set_attn_implementation("eager")
    return model.train(), base.requires_grad_(False), load_masks(inputs.masks)


def _gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("terms", [DistillationTerms(), TERMS], ids=["words", "all terms"])
@pytest.mark.parametrize("dropout", [0, 0.2], ids=["", "dropout"])
def test_it_is_the_gradient_of_distillation_and_of_the_distance(
    tmp_path: Path, terms: DistillationTerms, dropout: float
) -> None:
    """Against backward through backward, for batches of one part: dropout then comes in the same order."""
    model, base, masks = _models(tmp_path, dropout=dropout)
    batch = BATCH[:1]
    torch.manual_seed(1)
    found = GradientMatching(model, base, masks, terms, WEIGHT).accumulate(batch, lambda: None)
    gradients = _gradients(model)

    model, base, masks = _models(tmp_path, dropout=dropout)
    torch.manual_seed(1)
    distance = 1 - _cosine(model, base, batch)
    distance.backward()  # type: ignore[no-untyped-call]
    assert found.cosine == pytest.approx(1 - float(distance.detach()), abs=1e-5)
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad *= WEIGHT
    torch.manual_seed(1)
    loss = accumulate_gradients(model, Distillation(head_of(model), LoadedBase(base), terms), batch, lambda: None)
    # what is left of two much larger numbers, each rounded to fp32: 0.0017 off on some processors
    assert found.loss == pytest.approx(loss, rel=1e-2)
    wanted = _gradients(model)
    assert gradients.keys() == wanted.keys()
    error, length = (
        torch.cat([tensor.flatten() for tensor in each]).norm()
        for each in ([gradients[name] - wanted[name] for name in wanted], wanted.values())
    )
    assert error < 0.05 * length


def _cosine(model: PreTrainedModel, base: PreTrainedModel, batch: Tensor) -> Tensor:
    """Written down anew, with indices of the masks by hand."""
    weights, base_weights = _linear_weights(model), _linear_weights(base)
    for weight in base_weights.values():
        weight.requires_grad_(True)
    found = torch.autograd.grad(_cross_entropy(model, batch), list(weights.values()), create_graph=True)
    wanted = torch.autograd.grad(_cross_entropy(base, batch), list(base_weights.values()))
    cosines = [
        functional.cosine_similarity(left.flatten(), _kept(name, right).flatten(), 0)
        for name, left, right in zip(weights, found, wanted, strict=True)
    ]
    return torch.stack(cosines).mean()


def _kept(name: str, gradient: Tensor) -> Tensor:
    """Neurons 4 to 27 of layer 1, the second KV head of layer 2."""
    half = slice(gradient.shape["o_proj" in name] // 2, None)
    if ".1.mlp." in name:
        return gradient[:, 4:28] if "down" in name else gradient[4:28]
    if ".2.self_attn." in name:
        return gradient[:, half] if "o_proj" in name else gradient[half]
    return gradient


def _linear_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.named_parameters() if name.endswith("proj.weight")}


def _cross_entropy(model: PreTrainedModel, batch: Tensor) -> Tensor:
    logits = model(input_ids=batch.long(), use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten().long())


def test_parts_add_up(tmp_path: Path) -> None:
    """Of the batch's three rows one goes through at a time; gradients are compared once they are all there."""
    model, base, masks = _models(tmp_path)
    assert rows_at_once(CPU, BATCH.shape[1]) == 1
    found = GradientMatching(model, base, masks, TERMS, WEIGHT).accumulate(BATCH, lambda: None)
    model, base, _ = _models(tmp_path)
    assert found.cosine == pytest.approx(float(_cosine(model, base, BATCH).detach()), abs=1e-5)
    loss = accumulate_gradients(model, Distillation(head_of(model), LoadedBase(base), TERMS), BATCH, lambda: None)
    assert found.loss == pytest.approx(loss, rel=1e-3)


def test_a_model_that_lost_nothing_is_only_distilled(tmp_path: Path) -> None:
    """Gradients agree, the distance has none, and nothing of the pass that looks for it is left."""
    _, base, masks = _models(tmp_path)
    model = load_causal(prepare(tmp_path, dropout=0).base, CPU, torch.float32).train()
    model.get_output_embeddings().requires_grad_(False)
    whole = Masks(masks.kinds, masks.kind_of, {}, masks.prefix)
    matching = GradientMatching(model, base, whole, DistillationTerms(), WEIGHT)
    found = matching.accumulate(BATCH, lambda: None)
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.loss == pytest.approx(0, abs=1e-3)
    assert max(float(gradient.norm()) for gradient in _gradients(model).values()) < 0.05


def test_the_base_model_is_left_as_it_was(tmp_path: Path) -> None:
    model, base, masks = _models(tmp_path)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    GradientMatching(model, base, masks, TERMS, WEIGHT).accumulate(BATCH, lambda: None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in base.parameters())


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "cohere", "phi", "gpt_neox"])
def test_families(tmp_path: Path, family: str) -> None:
    """Norms, biases, heads of every kind: a step against the gradient raises the cosine."""
    pair = pruned_pair(family, tmp_path)
    kept = {key: indices.tolist() for key, indices in pair.kept.items()}
    masks = Masks(pair.geometry.kinds, pair.geometry.kind_of, kept, pair.geometry.layer_prefix)
    base = load_causal(pair.base, CPU, torch.float32).requires_grad_(False)
    model = load_causal(pair.pruned, CPU, torch.float32)
    model.get_output_embeddings().requires_grad_(False)
    batch = torch.randint(3, 90, (4, 16), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    matching = GradientMatching(model, base, masks, DistillationTerms(), weight=1000)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    first = matching.accumulate(batch, lambda: None)
    gradients = _gradients(model)
    length = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(before[name] - 1e-3 * gradients[name] / length if name in gradients else before[name])
    second = matching.accumulate(batch, lambda: None)
    assert first.cosine is not None
    assert second.cosine is not None
    assert second.cosine > first.cosine


def test_products_of_lower_precision_are_not_used(tmp_path: Path) -> None:
    """What a process allows itself elsewhere is allowed again after it."""
    seen = set()
    torch.set_float32_matmul_precision("medium")
    try:
        GradientMatching(*_models(tmp_path), TERMS, WEIGHT).accumulate(
            BATCH, lambda: seen.add(torch.get_float32_matmul_precision())
        )
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == {"highest"}


def test_checkpointing_changes_nothing(tmp_path: Path) -> None:
    found = []
    for checkpointed in (False, True):
        model, base, masks = _models(tmp_path)
        if checkpointed:
            checkpoint_activations(base)
            model.activation_checkpointing_enable({"use_reentrant": False})
        found.append(GradientMatching(model, base, masks, DistillationTerms(), WEIGHT).accumulate(BATCH, lambda: None))
    assert found[0].cosine == pytest.approx(found[1].cosine, abs=1e-6)
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-4)


def test_aligned_models_gradients_come_to_agree(tmp_path: Path) -> None:
    """Far more than distillation alone makes them."""
    plain, matched = (_cosine_after(tmp_path, weight) for weight in (0, 50))
    assert matched > 2 * plain
    assert matched > 0.02


def _cosine_after(folder: Path, weight: float) -> float:
    """Between gradients on text like that which alignment trained on."""
    output = folder / f"weight {weight}"
    build = request(folder, gradient_matching=weight, quantization_aware=False)
    align.run(build, prepare(folder), output, RecordingContext())
    report = json.loads((output / "alignment.json").read_bytes())
    assert report["gradient_matching"] == weight
    assert len(report["gradient_cosine"]) == (STEPS if weight else 0)
    model, base = (load_causal(path, CPU, torch.float32) for path in (output / "model", folder / "base"))
    masks, text = load_masks(folder / "pruning_masks.safetensors"), build.corpora["sea"].documents(Split.TRAIN)
    sequences = pack_tokens(text, AutoTokenizer.from_pretrained(folder / "base"), LENGTH, 8)
    return GradientMatching(model, base, masks, DistillationTerms(), WEIGHT).accumulate(sequences, lambda: None).cosine


@pytest.mark.parametrize("checks", range(1, 5))
def test_who_is_stopped_while_weights_are_moved_saves_them_unmoved(tmp_path: Path, checks: int) -> None:
    """A step of one part checks three times: for the base model, for cross-entropy, and at moved weights."""
    context = CancellingContext(steps=3, checks=checks)
    with pytest.raises(JobCancelled):
        align.run(request(tmp_path, quantization_aware=False), prepare(tmp_path), tmp_path / "cut", context)
    saved = load_state(tmp_path / "cut" / "state" / "training.safetensors")
    assert saved is not None
    other = CancellingContext(steps=saved.progress.steps)
    with pytest.raises(JobCancelled):
        align.run(request(tmp_path, quantization_aware=False), prepare(tmp_path), tmp_path / "between", other)
    between = load_state(tmp_path / "between" / "state" / "training.safetensors")
    assert between is not None
    assert [name for name, tensor in saved.tensors.items() if not torch.equal(tensor, between.tensors[name])] == []


@pytest.mark.parametrize(
    ("alignment", "pruning", "weight"),
    [
        ({}, {}, 1),
        ({"gradient_matching": 0}, {}, 0),
        ({"gradient_matching": 2.5}, {}, 2.5),
        ({"objective": "language_model"}, {}, 0),
        ({"trainable": "low_rank"}, {}, 0),
        ({"teacher_top_k": 8}, {}, 0),
        ({"tokens": 0}, {}, 0),
        ({}, {"method": "unstructured", "criterion": "magnitude"}, 0),
    ],
)
def test_by_default_it_is_where_it_can_be(
    alignment: Mapping[str, object], pruning: Mapping[str, object], weight: float
) -> None:
    assert gradient_matching_of(_recipe(alignment, pruning), ()) == weight


def test_a_mixture_is_only_matched_if_asked(tmp_path: Path) -> None:
    kinds = pruned_pair("mixtral", tmp_path).geometry.kinds
    assert gradient_matching_of(_recipe({}), kinds) == 0
    assert gradient_matching_of(_recipe({"gradient_matching": 0.5}), kinds) == 0.5


@pytest.mark.parametrize(
    ("alignment", "pruning", "said"),
    [
        ({"objective": "language_model"}, {}, "gradient_matching is for objective distillation"),
        ({"trainable": "low_rank"}, {}, "with trainable low_rank they are frozen"),
        ({"teacher_top_k": 8}, {}, "leave one of them out"),
        ({}, {"method": "unstructured", "criterion": "magnitude"}, "is for method structured, not unstructured"),
    ],
)
def test_what_cannot_be_is_refused(alignment: Mapping[str, object], pruning: Mapping[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _recipe({"gradient_matching": 1, **alignment}, pruning)


def test_several_devices_do_without_unless_asked() -> None:
    refuse_for_several(_recipe({}), 2)
    with pytest.raises(RequestFault, match="gradients of whole matrices, and each of 2 devices holds a part"):
        refuse_for_several(_recipe({"gradient_matching": 1}), 2)


def _recipe(alignment: Mapping[str, object], pruning: Mapping[str, object] | None = None) -> Recipe:
    return Recipe.model_validate(
        {
            "pruning": {"ratio": 0.5, "criterion": "random", **(pruning or {})},
            "alignment": {"corpora": [{"name": "sea"}], **alignment},
        }
    )


@each_device
def test_gradients_are_those_of_a_cpu(tmp_path: Path, device: str) -> None:
    found = []
    for place in ("cpu", device):
        model, base, masks = _models(tmp_path)
        terms = DistillationTerms()
        matching = GradientMatching(model.to(place), base.to(place), masks, terms, WEIGHT, practice=2)
        rounding = nf4_rounding(model, set(), matching.moved)
        for batch in (BATCH[:, :LENGTH], BATCH[:, LENGTH : 2 * LENGTH]):  # the second with a reference adapter on
            with rounding.rounded():
                matched = matching.accumulate(batch.to(place), lambda: None)
        found.append((matched, {name: gradient.cpu() for name, gradient in _gradients(model).items()}))
    assert found[0][0].cosine == pytest.approx(found[1][0].cosine, abs=0.01)
    for name, gradient in found[0][1].items():
        assert functional.cosine_similarity(gradient.flatten(), found[1][1][name].flatten(), 0) > 0.97
