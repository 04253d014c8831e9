"""How far gradient matching's quotient is from the exact product when matrix products are rounded, as a GPU does.

    python -m tests.benchmarks.matching_precision --stages FOLDER --text FILE.jsonl [--skip 0] [--tokens 256]

`--stages` is a build's (`publisher build … --work FOLDER`, or gpu_check's WORK/cpu/stages): its base model, the pruned
one and the aligned one. `--skip`: documents of the text before the two batches. Products of the pruned model's linear
layers, forward and backward, are of numbers with so many bits of mantissa: 23 is fp32, 10 TF32, 7 bf16; "7 + 7" is the
sum of three products of bf16 parts. Compared with the central difference in fp32, and, to tell what it matters, with
another batch of the same size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import AutoTokenizer

from publisher.checkpoint.masks import load_masks
from worker.alignment.gradient_matching import GradientMatching, _towards
from worker.models.causal import load_causal
from worker.training.batch_loss import DistillationTerms

CPU = torch.device("cpu")
#: bits of each part, and how many parts; ε relative to the weights
CASES = (
    ("fp32", None, 1e-5),
    ("fp32", None, 1e-4),
    ("TF32", (10, 1), 1e-5),
    ("TF32", (10, 1), 1e-4),
    ("bf16", (7, 1), 1e-5),
    ("bf16", (7, 1), 1e-4),
    ("bf16, 7 + 7", (7, 2), 1e-5),
)
Gradients = dict[str, Tensor]
Rounding = tuple[int, int] | None


def rounded(tensor: Tensor, bits: int) -> Tensor:
    """To the nearest number with `bits` of mantissa."""
    dropped = 23 - bits
    half = 1 << (dropped - 1)
    return ((tensor.contiguous().view(torch.int32) + half) >> dropped << dropped).view(torch.float32)


def product(left: Tensor, right: Tensor, rounding: Rounding) -> Tensor:
    """Of two matrices, each the sum of its rounded parts; products of two small parts are left out."""
    if rounding is None:
        return left @ right
    bits, number = rounding
    lefts, rights = _parts(left, bits, number), _parts(right, bits, number)
    pairs = [(one, other) for one in range(number) for other in range(number - one)]
    return torch.stack([lefts[one] @ rights[other] for one, other in pairs]).sum(0)


def _parts(tensor: Tensor, bits: int, number: int) -> list[Tensor]:
    found = []
    for _ in range(number):
        found.append(rounded(tensor, bits))
        tensor = tensor - found[-1]
    return found


class Rounded(TorchFunctionMode):
    """Within, linear layers without bias compute so, forward and backward."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self._rounding = rounding

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.linear and (len(args) < 3 or args[2] is None):
            return _Linear.apply(*args[:2], self._rounding)  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rounding: Rounding) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rounding = rounding
        return product(x.flatten(0, -2), weight.T, rounding).unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        by_x = product(flat, weight, ctx.rounding).view_as(x)
        by_weight = product(flat.T, x.flatten(0, -2), ctx.rounding) if ctx.needs_input_grad[1] else None
        return by_x, by_weight, None


class Quotients:
    """Of one pruned model: v of a batch, and the quotient along it."""

    def __init__(self, stages: Path, of: str) -> None:
        base = load_causal(_stage(stages, "fetch") / "base", CPU, torch.float32).requires_grad_(False)
        self._model = load_causal(_stage(stages, of) / "model", CPU, torch.float32).train()
        self._model.get_output_embeddings().requires_grad_(False)
        masks = load_masks(_stage(stages, "prune") / "pruning_masks.safetensors")
        self._matching = GradientMatching(self._model, base, masks, DistillationTerms(), 1.0)
        self._weights = self._matching._matched
        self._start = {name: weight.detach().clone() for name, weight in self._weights.items()}

    def direction(self, batch: Tensor) -> Gradients:
        matching = self._matching
        wanted, _ = matching._ask((batch,), matching._next_token.positions(batch), lambda: None)
        for name, found in self._gradients(batch, None).items():
            _towards(found, wanted[name])
        return wanted

    def quotient(self, batch: Tensor, v: Gradients, rounding: Rounding, relative: float) -> Gradients:
        step = float(relative * _norm(self._start) / _norm(v))
        moved = self._gradients_at(step, v, batch, rounding)
        here = self._gradients_at(0.0, v, batch, rounding)
        return {name: (moved[name] - here[name]) / step for name in v}

    def exact(self, batch: Tensor, v: Gradients, relative: float = 1e-5) -> Gradients:
        """The central difference, in fp32."""
        step = float(relative * _norm(self._start) / _norm(v))
        ahead, behind = (self._gradients_at(each, v, batch, None) for each in (step, -step))
        return {name: (ahead[name] - behind[name]) / (2 * step) for name in v}

    def _gradients_at(self, step: float, v: Gradients, batch: Tensor, rounding: Rounding) -> Gradients:
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(self._start[name] + step * v[name])
        return self._gradients(batch, rounding)

    def _gradients(self, batch: Tensor, rounding: Rounding) -> Gradients:
        self._model.zero_grad(set_to_none=True)
        loss = self._matching._next_token
        with Rounded(rounding):
            self._matching._accumulated(loss, (batch,), loss.positions(batch), lambda: None)
        return {name: weight.grad.clone() for name, weight in self._weights.items() if weight.grad is not None}


def _stage(stages: Path, name: str) -> Path:
    found = sorted(stages.glob(f"{name}-*"))
    if not found:
        raise SystemExit(f"{stages} holds no finished stage {name}")
    return found[-1]


def _norm(tensors: Gradients) -> Tensor:
    return torch.stack([tensor.double().norm() for tensor in tensors.values()]).norm()


def _line(name: str, found: Gradients, exact: Gradients) -> str:
    product = sum(float((found[each].double() * exact[each].double()).sum()) for each in exact)
    error = float(_norm({each: found[each] - exact[each] for each in exact}) / _norm(exact))
    return f"{name:24} cosine {product / float(_norm(found) * _norm(exact)):6.3f}  error {error:6.1%}"


def main() -> None:
    options = _options()
    for of in options.of:
        quotients = Quotients(options.stages, of)
        tokenizer = AutoTokenizer.from_pretrained(_stage(options.stages, "fetch") / "base")
        text = "\n".join(
            json.loads(line)["text"] for line in options.text.read_text().splitlines()[options.skip :][:100]
        )
        one, other = tokenizer(text, return_tensors="pt").input_ids[0, : 2 * options.tokens].view(2, 2, -1)
        v = quotients.direction(one)
        exact = quotients.exact(one, v)
        print(f"{of}: {options.tokens} tokens, against the central difference in fp32")
        elsewhere = quotients.quotient(other, quotients.direction(other), None, 1e-5)
        print(_line("another batch", elsewhere, exact), flush=True)
        for name, rounding, relative in CASES:
            print(_line(f"{name}, ε {relative:g}", quotients.quotient(one, v, rounding, relative), exact), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--of", nargs="+", choices=["prune", "align"], default=["prune", "align"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
