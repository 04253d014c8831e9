"""What else has to hold of a pruned model before its family counts as supported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from transformers import PreTrainedModel

from publisher.errors import UnsupportedModel
from publisher.loading.four_bit_modules import dense
from worker.families.pair import Pair, exact, third_party
from worker.families.reference import Float64
from worker.models.causal import hidden_states, load_causal
from worker.models.head import head_of
from worker.pruning.selection import kept_widths
from worker.quantization.nf4 import load_published, quantize_nf4
from worker.streaming.model import LayerStream

#: Rounding of fp32 through a few layers, relative to the largest logit.
_FP32 = 1e-4
_EXACT = 1e-9
_NEW_TOKENS = 4


@torch.no_grad()
def check_pair(pair: Pair) -> None:
    """Raises UnsupportedModel with the first property that does not hold."""
    for what, check in _CHECKS.items():
        with third_party(what):
            check(pair)


def counts_as_planned(pair: Pair) -> None:
    """The plan, the files and the loaded model hold as many parameters."""
    planned = pair.geometry.parameters(kept_widths(pair.geometry, pair.kept))
    stored = pair.geometry.tensor_shapes(kept_widths(pair.geometry, pair.kept))
    model = exact(pair.pruned)
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    loaded = sum(tensor.numel() for name, tensor in model.state_dict().items() if name not in tied)
    if not planned == loaded == sum(torch.Size(shape).numel() for shape in stored.values()):
        raise UnsupportedModel(f"the plan counts {planned} parameters, and the pruned model has {loaded}")


def saves_and_loads(pair: Pair) -> None:
    """save_pretrained and from_pretrained change nothing."""
    model = exact(pair.pruned)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = exact(Path(folder))
    _compare("saved and loaded again", _logits(again, pair.tokens), _logits(model, pair.tokens), 0.0)


def generates_with_cache(pair: Pair) -> None:
    """Tokens one by one through the KV cache give the logits of the whole text at once."""
    model = exact(pair.pruned)
    with Float64():
        written = model.generate(
            pair.tokens,
            max_new_tokens=_NEW_TOKENS,
            min_new_tokens=_NEW_TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    stepwise = torch.stack(written.logits, dim=1)  # (rows, new tokens, vocab)
    at_once = _logits(model, written.sequences)[:, -_NEW_TOKENS - 1 : -1]
    _compare("generated with a KV cache", stepwise.double(), at_once, _EXACT)


def streams(pair: Pair) -> None:
    """Layers read from disk one at a time give the logits of the model loaded whole."""
    streamed = LayerStream(pair.pruned, "cpu").streamed_logits(pair.tokens)
    whole = load_causal(pair.pruned, "cpu", torch.float32)(pair.tokens, use_cache=False).logits
    _compare("read layer by layer", streamed, whole, _FP32)


def splits_at_the_head(pair: Pair) -> None:
    """Hidden states through the head are the model's own logits: what alignment and evaluation rely on."""
    model = exact(pair.pruned)
    with Float64():
        found = head_of(model).logits(hidden_states(model, pair.tokens))
    _compare("hidden states through the head", found, _logits(model, pair.tokens), _EXACT)


def quantizes(pair: Pair) -> None:
    """The NF4 checkpoint computes what the pruned model does with the values that NF4 left of its weights."""
    with TemporaryDirectory() as folder:
        quantize_nf4(pair.pruned, Path(folder), "cpu")
        quantized = load_published(Path(folder), "cpu")
    plain = load_causal(pair.pruned, "cpu", torch.float32)
    _take_weights(plain, quantized)
    found, wanted = (model(pair.tokens, use_cache=False).logits for model in (quantized, plain))
    _compare("loaded from NF4", found, wanted, _FP32)


def _take_weights(plain: PreTrainedModel, quantized: PreTrainedModel) -> None:
    """Copy everything that files hold of `quantized`, what is in 4 bits dequantized."""
    stored = plain.state_dict(keep_vars=True)
    for name, module in quantized.named_modules():
        for key, weight in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            path = f"{name}.{key}"
            if path in stored:
                stored[path].data.copy_(_dequantized(module, weight))


def _dequantized(module: nn.Module, weight: Tensor) -> Tensor:
    if not isinstance(module, Linear4bit) or weight.is_floating_point():
        return weight.data
    return dense(weight, torch.float32)  # the type that load_published computes in on a CPU


def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    with Float64():
        logits: Tensor = model(tokens, use_cache=False).logits
    return logits


def _compare(what: str, found: Tensor, wanted: Tensor, relative: float) -> None:
    difference, largest = float((found - wanted).abs().max()), float(wanted.abs().max())
    if not difference <= relative * largest:
        raise UnsupportedModel(f"{what}, the pruned model's logits differ by {difference:.1e} of {largest:.1e}")


#: What an error of the family's own code means → the property
_CHECKS: dict[str, Callable[[Pair], None]] = {
    "its parameters cannot be counted": counts_as_planned,
    "its pruned model cannot be saved and loaded again": saves_and_loads,
    "its pruned model cannot generate": generates_with_cache,
    "its layers cannot be read one at a time, they hand on more than hidden states": streams,
    "its logits cannot be made from hidden states": splits_at_the_head,
    "its pruned model cannot be quantized": quantizes,
}
