"""Gradient matching: the pruned model learns to pull adapters the way the base model would.

An adapter learns from gradients alone. Where the pruned model's point elsewhere than the base model's, it learns what
does not help the base model, however alike both models' words are. So beside the words, gradients are matched: the
loss gets `weight` times the mean over matrices of 1 - cos(G, G_base), with G (out, in) the gradient of next-token
cross-entropy over the batch by a matrix of the pruned model, and G_base that of the base model's, at entries that were
kept. The distance is that of dataset condensation (Zhao et al., arXiv 2006.05929), by whole matrices.

Its own gradient is a Hessian's product with v = d(distance)/dG, taken as the difference quotient
(∇L(θ + εv) - ∇L(θ)) / ε, as DARTS does (Liu et al., arXiv 1806.09055): one more ordinary pass instead of a backward
through backward, so kernels, checkpointing and compiled layers stay as they are. The pass that is needed for the words
anyway is the one at θ + εv. So small an ε would be lost in bf16: the pruned model computes in fp32, on a GPU in
products of TF32. These need a larger ε (`relative_step`), and give a gradient that differs less from the exact one
than those of two batches from each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from publisher.checkpoint.masks import Masks
from publisher.checkpoint.recovery.methods.lora_placement import cut_matrix
from worker.alignment.reference_adapter import ReferenceAdapter
from worker.alignment.state import random_state, restore_random_state
from worker.models.causal import hidden_states
from worker.models.device import fp32_products, is_gpu
from worker.models.head import head_of
from worker.models.measure import compute_dtype
from worker.probe.probe import linear_layers
from worker.training.batch_loss import Distillation, DistillationTerms, NextToken, rows_at_once
from worker.training.objective import Teacher, WholeVocabulary
from worker.training.teacher import states_between


def relative_step(device: torch.device) -> float:
    """ε times the norm of v over that of the weights.

    In fp32, on SmolLM2-135M, the quotient is 0.8 % from what backward through backward gives with 1e-5, 7 % with 1e-4.
    Rounding as TF32 does adds what a larger ε makes small: of SmolLM2-135M pruned by half, four batches of 256 tokens,
    the cosine to the exact one is -0.86 to 0.96 with 1e-5 and 0.985 to 0.990 with 1e-4, while two batches differ far
    more (docs/research-log.md).
    """
    return 1e-4 if is_gpu(device) else 1e-5


@dataclass(frozen=True)
class Matched:
    """Of a batch, before the step: the objective's `loss` in nats per token, and the mean `cosine` between gradients;
    None: they are not matched."""

    loss: float
    cosine: float | None = None


class GradientMatching:
    """Gradients of distillation by `terms` and of `weight` times the distance between gradients.

    `model`, in fp32, was cut out of `base` by `masks`. With `practice` steps both wear an adapter
    (reference_adapter.py). Within `accumulate` the weights named in `moved` are moved, and left so: whoever calls it
    brings them back (worker.alignment.rounding).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        base: PreTrainedModel,
        masks: Masks,
        terms: DistillationTerms,
        weight: float,
        *,
        practice: int = 0,
    ) -> None:
        self._model, self._base, self._terms, self._weight = model, base, terms, weight
        self._head, self._base_head = head_of(model).to(torch.float32), head_of(base)
        self._next_token = NextToken(self._head)
        layers, base_layers = linear_layers(model), linear_layers(base)
        self._matched = {f"{name}.weight": layers[name].weight for name in layers if name in base_layers}
        self._base_matched = {f"{name}.weight": base_layers[name].weight for name in layers if name in base_layers}
        self._masks = masks
        worn = {name: base_layers[name.removesuffix(".weight")] for name in self._matched}
        self._reference = ReferenceAdapter(self._matched, worn, masks, practice)

    @property
    def moved(self) -> set[str]:
        return set(self._matched)

    def state(self) -> dict[str, Tensor]:
        """What the next batch needs of those before it, by name, to be kept with the state of training."""
        return self._reference.state()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """The opposite of `state`; other tensors may be among them."""
        self._reference.restore(tensors)

    def accumulate(self, batch: Tensor, pause: Callable[[], None]) -> Matched:
        """Set gradients to those of the loss over `batch` (rows, length), whatever they were; `pause` is called before
        each part and may raise."""
        self._model.zero_grad(set_to_none=True)
        parts = torch.split(batch, rows_at_once(batch.device, batch.shape[1]))
        positions = self._next_token.positions(batch)
        with fp32_products(batch.device):
            self._reference.put_on()
            with self._reference.on_base():
                wanted, words = self._ask(parts, positions, pause)
            self._reference.learn(wanted)
            chance = random_state(batch.device)
            language = self._accumulated(self._next_token, parts, positions, pause)
            step, cosine = self._move(wanted)
            restore_random_state(batch.device, chance)  # another dropout would be all that the difference shows
            both, scale = self._objective(words, step, batch.numel() / positions)
            found = self._accumulated(both, parts, batch.numel() / scale, pause)
        self._reference.advance()
        # v is at right angles to the gradient, so cross-entropy is what it was before the weights moved
        loss = found - (scale - 1) * language * positions / batch.numel()
        return Matched(float(loss), float(cosine))

    def _ask(
        self, parts: Sequence[Tensor], positions: int, pause: Callable[[], None]
    ) -> tuple[dict[str, Tensor], _Said]:
        """The base model's gradients at kept entries, fp32 by name, and what it says of each part."""
        layers = Distillation.compared_layers(self._terms)
        said = _Said()
        with self._gradients_of_base() as wanted:
            for tokens in parts:
                pause()
                dtype = compute_dtype(tokens.device)
                with (
                    torch.autocast(tokens.device.type, dtype, enabled=is_gpu(tokens.device)),
                    states_between(self._base, layers) as found,
                ):
                    hidden = hidden_states(self._base, tokens)
                    loss = NextToken(self._base_head).of_states(hidden, tokens) / positions
                loss.backward()  # type: ignore[no-untyped-call]
                states = {layer: state.detach() for layer, state in found.items()}
                said.add(WholeVocabulary(hidden.detach().flatten(0, 1), self._base_head), states)
        return wanted, said

    @contextmanager
    def _gradients_of_base(self) -> Iterator[dict[str, Tensor]]:
        """Within the block backward adds to the tensors that it gives, one matrix's gradient in memory at a time."""
        wanted = {name: torch.zeros_like(weight) for name, weight in self._matched.items()}
        hooks = []
        for name, weight in self._base_matched.items():
            weight.requires_grad_(True)
            taking = partial(self._take, wanted, name)
            hooks.append(weight.register_post_accumulate_grad_hook(taking))  # type: ignore[no-untyped-call]
        try:
            yield wanted
        finally:
            for hook in hooks:
                hook.remove()
            for weight in self._base_matched.values():
                weight.requires_grad_(False)
                weight.grad = None

    def _take(self, wanted: Mapping[str, Tensor], name: str, weight: Tensor) -> None:
        assert weight.grad is not None
        wanted[name].add_(cut_matrix(name, weight.grad, self._masks))
        weight.grad = None

    def _accumulated(
        self, loss: NextToken | Distillation, parts: Sequence[Tensor], positions: float, pause: Callable[[], None]
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=parts[0].device)
        for tokens in parts:
            pause()
            value = loss(self._model, tokens) / positions
            value.backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return total

    @torch.no_grad()
    def _move(self, wanted: Mapping[str, Tensor]) -> tuple[float, Tensor]:
        """Move weights by ε v, and make their gradients g what the next pass is to add to: -weight / ε times g.

        Returns ε, 0 if there is nowhere to move to, and the mean cosine. `wanted` becomes v.
        """
        cosines = torch.stack([_towards(weight.grad, wanted[name]) for name, weight in self._matched.items()])
        lengths = [torch.stack([tensor.norm() for tensor in each.values()]).norm() for each in (self._matched, wanted)]
        length, slope = (float(each) for each in lengths)
        step = relative_step(cosines.device) * length * len(cosines) / slope if slope else 0.0
        for name, weight in self._matched.items():
            weight.add_(wanted[name], alpha=step / len(cosines))
        for weight in self._model.parameters():
            if weight.grad is not None:
                weight.grad.mul_(-self._weight / step if step else 0.0)
        return step, cosines.mean()

    def _objective(self, words: _Said, step: float, per_position: float) -> tuple[Distillation, float]:
        """Distillation plus `weight / ε` times the mean cross-entropy, as one loss, and what to multiply it by."""
        added = self._weight / step * per_position if step else 0.0
        scale = 1 + added
        terms = replace(
            self._terms,
            language_model_share=(self._terms.language_model_share + added) / scale,
            hidden_states_weight=self._terms.hidden_states_weight / scale,
        )
        return Distillation(self._head, words, terms), scale


def _towards(found: Tensor | None, wanted: Tensor) -> Tensor:
    """The cosine of both; `wanted` becomes the derivative of 1 - cosine by `found`. Zero where either is."""
    if found is None:  # an expert that no token was sent to
        wanted.zero_()
        return wanted.new_zeros(())
    tiny = torch.finfo(wanted.dtype).tiny
    length, wanted_length = found.norm(), wanted.norm()
    lengths = length * wanted_length
    cosine: Tensor = (found * wanted).sum() / lengths.clamp_min(tiny)
    derivative = cosine * found / length.square().clamp_min(tiny) - wanted / lengths.clamp_min(tiny)
    wanted.copy_(torch.where(lengths > tiny, derivative, torch.zeros_like(derivative)))
    return cosine


class _Said:
    """What the base model said of parts of a batch, for whoever asks about them in the same order."""

    def __init__(self) -> None:
        self._said: deque[tuple[WholeVocabulary, dict[int, Tensor]]] = deque()

    def add(self, words: WholeVocabulary, states: dict[int, Tensor]) -> None:
        self._said.append((words, states))

    def asked(self, tokens: Tensor, layers: int) -> tuple[Teacher, dict[int, Tensor]]:
        return self._said.popleft()
