"""The LM head as a function of its own: from hidden states to logits, and back with gradients.

Of most families it is a matrix; some add a bias (Phi), scale the logits (Cohere, Granite) or cap them softly (Gemma).
Two families even read one and the same key of their config in opposite ways: Granite divides by `logits_scaling`,
HyperCLOVA X multiplies. So what the head does is taken from the forward pass of the model, not from the word of its
config.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from publisher.errors import UnsupportedModel

_PROBES = 4
#: Standard deviation of the logits that are compared: soft caps are at 15 to 50, and have to show.
_PROBE_LOGITS = 20.0
#: Rounding of a sum of products and of what follows it, in steps of the dtype at the largest logit.
_ROUNDING_STEPS = 16


@dataclass(frozen=True)
class Head:
    """`softcap * tanh(z / softcap)` with `z = scale * (hidden @ weight.T + bias)`; without a softcap `z` itself.

    `weight` (vocab, hidden_size), detached, in the dtype of the matrix products; with tied embeddings it is the
    embeddings' own tensor. `bias` (vocab,).
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def to(self, dtype: torch.dtype) -> Head:
        """The same head with its matrix products in `dtype`."""
        return replace(self, weight=self.weight.to(dtype), bias=None if self.bias is None else self.bias.to(dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, hidden_size) → (tokens, vocab), at least fp32: bf16 steps are too coarse for a softmax."""
        logits = hidden.to(self.weight.dtype) @ self.weight.T
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def slope(self, logits: Tensor) -> Tensor | None:
        """d(logits)/dz where the soft cap bends them, (tokens, vocab); None if it is 1 everywhere."""
        return None if self.softcap is None else 1 - (logits / self.softcap).square_()

    def by_hidden(self, by_logits: Tensor, slope: Tensor | None) -> Tensor:
        """d(loss)/d(hidden) (tokens, hidden_size) from d(loss)/d(logits), which it may overwrite."""
        if slope is not None:
            by_logits *= slope
        if self.scale != 1.0:
            by_logits *= self.scale
        return by_logits.to(self.weight.dtype) @ self.weight


def head_of(model: PreTrainedModel) -> Head:
    """The head that turns hidden states into what `model` itself says their logits are, checked on a few states.

    The decoder takes no part, so its layers may be without weights. Raises UnsupportedModel if the family does
    something to its logits that no Head does.
    """
    linear = model.get_output_embeddings()
    bias = getattr(linear, "bias", None)
    plain = Head(_dense_weight(linear), None if bias is None else bias.detach())
    states = _probe_states(plain)
    own = _own_logits(model, states)
    if not own.isfinite().all():
        return plain  # nothing to compare: whatever is measured with it will not be a number, and says so
    for head in _candidates(plain, model.config):
        if _agree(head.logits(states), own, plain.weight.dtype):
            return head
    raise UnsupportedModel(
        f"{type(model).__name__} makes its logits in a way that is not known here: a matrix, bias, scale and soft cap "
        "do not reproduce them.",
        way_out="See publisher families for what is supported.",
    )


def _dense_weight(linear: Any) -> Tensor:
    """(vocab, hidden_size); a head in 4 bits has its values, in the dtype that it computes in."""
    weight = linear.weight
    if getattr(weight, "quant_state", None) is None:
        dense: Tensor = weight.detach()
        return dense
    from publisher.loading.four_bit_modules import dense as dequantized

    return dequantized(weight, linear.compute_dtype)


def _candidates(plain: Head, config: Any) -> Iterator[Head]:
    """Whatever the config could mean; what it names comes first, so that a rounding error never drops it."""
    values = {key: getattr(config, key, None) for key in ("logit_scale", "logits_scaling", "final_logit_softcapping")}
    scaling = values["logits_scaling"]
    scales = [values["logit_scale"], 1 / scaling if scaling else None, scaling, 1.0]
    for softcap in dict.fromkeys((values["final_logit_softcapping"], None)):
        for scale in dict.fromkeys(scale for scale in scales if scale):
            yield replace(plain, scale=float(scale), softcap=softcap)


def _probe_states(plain: Head) -> Tensor:
    """(_PROBES, hidden_size) on the CPU's random numbers, scaled to logits that a soft cap would bend."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(_PROBES, plain.weight.shape[1], generator=generator).to(plain.weight)
    spread = plain.logits(states).std().clamp_min(torch.finfo(torch.float32).tiny)
    return states * (_PROBE_LOGITS / spread).to(states)


def _agree(found: Tensor, own: Tensor, dtype: torch.dtype) -> bool:
    if found.shape != own.shape:
        return False
    allowed = _ROUNDING_STEPS * torch.finfo(dtype).eps * own.abs().max()
    return bool((found - own).abs().max() <= allowed)


@torch.no_grad()
def _own_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """What the model's own forward pass makes of `states` (tokens, hidden_size) after the final norm."""
    tokens = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
    with _decoder_replaced(model, _Given(states[None])):
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits[0].to(torch.promote_types(logits.dtype, torch.float32))


class _Given(nn.Module):
    """Stands where the decoder was and answers hidden states that were chosen."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *_: object, **__: object) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=self.states)


@contextmanager
def _decoder_replaced(model: PreTrainedModel, replacement: nn.Module) -> Iterator[None]:
    name = model.base_model_prefix
    decoder = getattr(model, name)
    setattr(model, name, replacement)
    try:
        yield
    finally:
        setattr(model, name, decoder)
