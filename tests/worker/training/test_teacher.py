"""The base model's word on each token: asked anew, and kept on disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from tests.devices import each_device
from tests.models import tiny_llama
from tests.worker.alignment.builds import prepare, request
from worker.context import RecordingContext
from worker.models.causal import load_causal
from worker.models.head import head_of
from worker.stages.align import stage as align
from worker.training.batch_loss import Distillation, DistillationTerms
from worker.training.objective import LikeliestTokens
from worker.training.teacher import KeptBase, KeptTokens, LoadedBase

K = 7


class Loading:
    """Counts how often the base model is asked for."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self.device, self.times = folder, device, 0

    def __call__(self) -> PreTrainedModel:
        self.times += 1
        return load_causal(self.folder, self.device, torch.float32)


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tiny_llama(tmp_path / "base"))


def text(rows: int = 6, length: int = 10, seed: int = 0) -> Tensor:
    return torch.randint(0, 320, (rows, length), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)


def said(base: KeptBase, tokens: Tensor) -> LikeliestTokens:
    return base.asked(tokens, 0)[0]


def assert_are_likeliest(found: LikeliestTokens, tokens: Tensor, model: PreTrainedModel, temperature: float) -> None:
    with torch.no_grad():
        wanted = (model(tokens.to(model.device)).logits / temperature).log_softmax(-1).flatten(0, 1).topk(K)
    assert torch.equal(found.indices.long(), wanted.indices)
    torch.testing.assert_close(found.log_probabilities.float(), wanted.values, rtol=1e-3, atol=1e-3)


@each_device
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kept_tokens_are_the_models_likeliest(
    tmp_path: Path, loading: Loading, temperature: float, device: str
) -> None:
    loading.device = device
    kept = KeptTokens(text(), K, temperature)
    base = KeptBase(kept, tmp_path / "kept", loading)
    for _ in range(2):  # computed, then read
        assert_are_likeliest(said(base, text()[2:4].to(device)), text()[2:4], loading(), temperature)


def test_the_base_model_is_asked_once_for_each_sequence_by_all_who_share_the_file(
    tmp_path: Path, loading: Loading
) -> None:
    kept = KeptTokens(text(), K, 1.0)
    first = KeptBase(kept, tmp_path / "kept", loading)
    wanted = [said(first, rows) for rows in text().split(2)]
    assert loading.times == 1
    second = KeptBase(kept, tmp_path / "kept", loading)
    for rows, expected in zip(text().split(2), wanted, strict=True):
        found = said(second, rows)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.log_probabilities, expected.log_probabilities)
    assert loading.times == 1


def test_a_file_that_was_half_written_is_completed(tmp_path: Path, loading: Loading) -> None:
    kept = KeptTokens(text(), K, 1.0)
    whole = said(KeptBase(kept, tmp_path / "kept", loading), text())
    for ending, loses in ((".tokens", slice(0, 40)), (".log_probabilities", slice(700, None))):
        path = (tmp_path / "kept").with_suffix(ending)
        content = bytearray(path.read_bytes())
        content[loses] = bytes(len(content[loses]))
        path.write_bytes(content)
    mended = said(KeptBase(kept, tmp_path / "kept", loading), text())
    assert torch.equal(mended.indices, whole.indices)
    assert torch.equal(mended.log_probabilities, whole.log_probabilities)


def test_text_that_is_not_kept_is_answered_all_the_same(tmp_path: Path, loading: Loading) -> None:
    base = KeptBase(KeptTokens(text(), K, 1.0), tmp_path / "kept", loading)
    other = text(rows=2, length=5, seed=9)
    assert_are_likeliest(said(base, other), other, loading(), 1.0)


def test_files_of_other_texts_ks_and_temperatures_have_other_names() -> None:
    digests = {
        KeptTokens(sequences, k, temperature).digest
        for sequences in (text(), text(seed=1), text().view(10, 6))
        for k in (K, 8)
        for temperature in (1.0, 2.0)
    }
    assert len(digests) == 12


def test_the_whole_loss_is_that_of_whole_models(tmp_path: Path, loading: Loading) -> None:
    """Every term, against logits and hidden states as transformers gives them."""
    model = load_causal(tiny_llama(tmp_path / "pruned", seed=3), "cpu")
    base, tokens = loading(), text().long()
    terms = DistillationTerms(temperature=1.5, language_model_share=0.25, hidden_states_weight=0.5)
    found = Distillation(head_of(model), LoadedBase(base), terms)(model, tokens)
    states: list[list[Tensor]] = []
    for each in (model, base):
        layers: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _m, _a, output, kept=layers: kept.append(output))
            for layer in each.model.layers
        ]
        each(tokens)
        states.append(layers)
        for hook in hooks:
            hook.remove()
    own, wanted = model(tokens).logits, base(tokens).logits
    divergence = functional.kl_div(
        (own / 1.5).log_softmax(-1), (wanted / 1.5).log_softmax(-1), log_target=True, reduction="sum"
    )
    next_tokens = functional.cross_entropy(own[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    distance = sum(
        float(((a - b).square().sum(-1) / b.square().sum(-1)).sum().detach()) for a, b in zip(*states, strict=True)
    ) / len(base.model.layers)
    expected = 0.75 * 1.5**2 * float(divergence) + 0.25 * float(next_tokens) + 0.5 * distance
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_sweeps_second_recipe_aligns_without_the_base_models_weights(tmp_path: Path) -> None:
    inputs = dataclasses.replace(prepare(tmp_path / "models"), kept=tmp_path / "kept")
    for number, rate in enumerate((1e-3, 2e-3)):
        if number:
            (inputs.base / "model.safetensors").unlink()
        (tmp_path / str(number)).mkdir()
        asked = request(tmp_path / "models", teacher_top_k=K, learning_rate=rate)
        align.run(asked, inputs, tmp_path / str(number), RecordingContext())
    first, second = (json.loads((tmp_path / str(n) / "alignment.json").read_bytes())["loss"] for n in range(2))
    assert first[0] == second[0]
    assert first[-1] != second[-1]
    assert 0 < first[-1] < first[0]
