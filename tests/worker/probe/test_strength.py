from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from publisher.checkpoint.strength import set_strength
from publisher.corpus.source import CorpusSource, Split
from publisher.errors import RequestFault
from publisher.manifest.evaluation import TriedStrength, chosen_strength
from publisher.recipe import STRENGTHS, ProbeBudget
from tests.models import byte_tokenizer, tiny_llama
from worker.probe.strength import try_strengths
from worker.probe.text import certificate_text
from worker.text.packing import pack_tokens

TEXT = (torch.arange(6 * 24) % 7 + 60).view(6, 24)


def _trained(folder: Path, divided_by: float) -> PreTrainedModel:
    """With a LoRA that has learnt TEXT, then divided."""
    tiny_llama(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["up_proj", "o_proj"], task_type="CAUSAL_LM")
    adapter = get_peft_model(base, config)
    optimizer = torch.optim.Adam([weight for weight in adapter.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        _loss(adapter, TEXT).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, weight in adapter.named_parameters():
        if "lora_B" in name:
            weight.data /= divided_by
    model: PreTrainedModel = adapter.get_base_model()
    return model.eval()


def _loss(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    logits = model(tokens).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def test_losses_are_those_of_the_update_times_each_strength(tmp_path: Path) -> None:
    model, advanced = _trained(tmp_path, divided_by=1.3), []
    tried = try_strengths(model, TEXT, advanced.append, lambda: None)
    assert [each.strength for each in tried] == list(STRENGTHS)
    assert advanced == [6] * len(STRENGTHS)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for each in tried:
        for layer in layers:
            layer.scaling["default"] = 2 * each.strength
        assert each.loss == pytest.approx(float(_loss(model, TEXT).detach()), rel=1e-5)


def test_an_adapter_that_is_too_weak_is_strengthened_and_another_is_not(tmp_path: Path) -> None:
    """Half of what was learnt is too little; three times as much is far too much."""
    found = {}
    for divided_by in (2.0, 1 / 3):
        model = _trained(tmp_path / str(divided_by), divided_by)
        found[divided_by] = chosen_strength(try_strengths(model, TEXT, lambda _: None, lambda: None))
    assert found[2.0] == max(STRENGTHS)
    assert found[1 / 3] == 1.0


def test_strength_is_of_what_was_trained_however_often_it_is_set(tmp_path: Path) -> None:
    model = _trained(tmp_path, 1)
    expected = _loss(model, TEXT)
    set_strength(model, 1.5)
    assert not torch.equal(_loss(model, TEXT), expected)
    set_strength(model, 1.0)
    assert torch.equal(_loss(model, TEXT), expected)


def test_error_is_that_of_the_paired_differences_from_the_least_loss(tmp_path: Path) -> None:
    """Sequences differ far more among each other than strengths do, so errors of the losses themselves say nothing."""
    model = _trained(tmp_path, divided_by=1.5)
    text = torch.cat([TEXT[:3], torch.randint(60, 90, (3, 24), generator=torch.Generator().manual_seed(0))])
    tried = try_strengths(model, text, lambda _: None, lambda: None)
    losses = {}
    for each in tried:
        set_strength(model, each.strength)
        losses[each.strength] = [float(_loss(model, row[None]).detach()) for row in text]
    best = losses[min(tried, key=lambda each: each.loss).strength]
    for each in tried:
        differences = [one - other for one, other in zip(losses[each.strength], best, strict=True)]
        assert each.error == pytest.approx(statistics.stdev(differences) / 6**0.5, rel=1e-3, abs=1e-6)
    assert all(each.error == 0 for each in try_strengths(model, TEXT[:1], lambda _: None, lambda: None))


def test_the_mildest_within_one_error_of_the_least_loss_is_chosen() -> None:
    def tried(*losses: float, error: float) -> list[TriedStrength]:
        return [TriedStrength(strength=s, loss=loss, error=error) for s, loss in zip(STRENGTHS, losses, strict=True)]

    assert chosen_strength(tried(4.048, 4.040, 4.0351, 4.0346, error=0.001)) == 1.3
    assert chosen_strength(tried(4.048, 4.040, 4.0351, 4.0346, error=0.0)) == 1.5
    assert chosen_strength(tried(4.030, 4.040, 4.0351, 4.0346, error=0.001)) == 1.0


def test_the_weakest_of_equals_is_chosen_and_without_text_none() -> None:
    assert chosen_strength([TriedStrength(strength=each, loss=2.0) for each in STRENGTHS]) == 1.0
    assert chosen_strength([]) == 1.0


@pytest.mark.parametrize(
    ("steps", "trained", "measured"),
    [(2, 4, 1024), (20, 40, 1024), (1450, 2900, 462), (1640, 2942, 420), (10_000, 2942, 420)],
    ids=["of much", "of more", "what is left is enough", "what is left is too little", "nothing would be left"],
)
def test_what_strength_is_chosen_on_is_not_trained_on(tmp_path: Path, steps: int, trained: int, measured: int) -> None:
    (tmp_path / "text.txt").write_text("".join(chr(97 + n % 26) for n in range(3362 * 8 - 1)))
    corpus = CorpusSource(name="text", path=tmp_path / "text.txt", held_out_fraction=0)
    text = certificate_text(corpus, byte_tokenizer(), ProbeBudget(steps=steps, batch_size=2, sequence_length=8))
    assert (len(text.training), len(text.measured)) == (trained, measured)
    whole = pack_tokens(corpus.documents(Split.TRAIN), byte_tokenizer(), 8, 10_000)
    assert torch.equal(torch.cat([text.training, text.measured]), whole[: trained + measured])


def test_a_probe_of_one_sequence_leaves_nothing_to_choose_on(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the whale swims")
    corpus = CorpusSource(name="one", path=tmp_path / "one.txt", held_out_fraction=0)
    text = certificate_text(corpus, byte_tokenizer(), ProbeBudget(sequence_length=16))
    assert (len(text.training), len(text.measured)) == (1, 0)
    with pytest.raises(RequestFault, match="less text to train the probe on than one sequence"):
        certificate_text(corpus, byte_tokenizer(), ProbeBudget(sequence_length=17))
