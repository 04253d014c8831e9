"""What the base model says of a text while the pruned model learns from it: asked anew, or kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.models.causal import hidden_states
from worker.models.head import head_of
from worker.streaming.model import decoder_layers
from worker.training.objective import LikeliestTokens, Teacher, WholeVocabulary


class BaseModel(Protocol):
    """The teacher of a batch."""

    def asked(self, tokens: Tensor, layers: int) -> tuple[Teacher, dict[int, Tensor]]:
        """For `tokens` (rows, length): its word on each, and what comes out of `layers` of its layers, by number."""


class LoadedBase:
    """The base model in memory."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.head = model, head_of(model)

    @torch.no_grad()
    def asked(self, tokens: Tensor, layers: int) -> tuple[WholeVocabulary, dict[int, Tensor]]:
        with states_between(self.model, layers) as found:
            hidden = hidden_states(self.model, tokens).flatten(0, 1)
        return WholeVocabulary(hidden, self.head), found


@dataclass(frozen=True)
class KeptTokens:
    """What is kept of each sequence of `sequences` (n, length) int32: the `k` likeliest tokens at `temperature`.

    `base`: the base model's name and revision.
    """

    sequences: Tensor
    k: int
    temperature: float
    base: tuple[str, str] = ("", "")

    @property
    def digest(self) -> str:
        """sha256 in hex: what the files are named by."""
        said = json.dumps(["likeliest tokens", 1, list(self.sequences.shape), self.k, self.temperature, self.base])
        return hashlib.sha256(said.encode() + self.sequences.int().contiguous().numpy().tobytes()).hexdigest()


class KeptBase:
    """The base model's likeliest tokens in a file, which it writes as it is asked for sequences not there yet.

    All recipes that train on the same sequences share it, at the same time, too: each writes the same. The base model
    is loaded by `load` when it is first needed, so not at all once the file is complete. The file has for each token
    `k` numbers of tokens, int32, counted from 1 so that 0 means not there; then `k` log-probabilities, float16.
    """

    def __init__(self, kept: KeptTokens, file: Path, load: Callable[[], PreTrainedModel]) -> None:
        self._kept, self._load = kept, load
        shape = (*kept.sequences.shape, kept.k)
        self._indices = _mapped(file.with_suffix(".tokens"), shape, torch.int32)
        self._values = _mapped(file.with_suffix(".log_probabilities"), shape, torch.float16)
        self._rows = {_key(row): index for index, row in enumerate(kept.sequences)}

    def asked(self, tokens: Tensor, layers: int) -> tuple[LikeliestTokens, dict[int, Tensor]]:
        assert not layers, "the recipe's own validation refuses hidden states together with kept tokens"
        rows = [self._rows.get(_key(row)) for row in tokens.cpu().int()]
        if None in rows:  # held-out text, which is looked at a few times only
            indices, values = self._computed(tokens)
        else:
            indices, values = self._read(tokens, [row for row in rows if row is not None])
        return LikeliestTokens(indices.flatten(0, 1), values.flatten(0, 1)), {}

    def _read(self, tokens: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        missing = [place for place, row in enumerate(rows) if not self._is_there(row)]
        if missing:
            found, values = self._computed(tokens[missing])
            for place, indices, log_probabilities in zip(missing, found, values, strict=True):
                self._values[rows[place]] = log_probabilities.cpu()
                self._indices[rows[place]] = indices.cpu() + 1
        return self._indices[rows].to(tokens.device) - 1, self._values[rows].to(tokens.device)

    def _is_there(self, row: int) -> bool:
        """A machine that lost its power may have kept one file's pages and not the other's."""
        total = self._values[row].float().exp().sum(-1)
        return bool((self._indices[row] > 0).all()) and bool((total < 1 + self._kept.k * 1e-3).all())

    @torch.no_grad()
    def _computed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, length, k) int32 and float16: what is used is what is kept, so it makes no difference which it was."""
        teacher, _ = self._base.asked(tokens, 0)
        found = [
            teacher.head.logits(states).div_(self._kept.temperature).log_softmax(-1).topk(self._kept.k)
            for states in torch.split(teacher.hidden, _TOKENS_AT_ONCE)
        ]
        shape = (*tokens.shape, self._kept.k)
        values = torch.cat([top.values for top in found]).half().view(shape)
        return torch.cat([top.indices for top in found]).int().view(shape), values

    @cached_property
    def _base(self) -> LoadedBase:
        return LoadedBase(self._load())


#: tokens whose logits exist at once while the likeliest are looked for
_TOKENS_AT_ONCE = 64


def _mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A file of zeros that becomes what is written to the tensor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(prod(shape) * dtype.itemsize)
    os.utime(path)  # used now: what was not for long is collected first
    return torch.from_file(str(path), shared=True, size=prod(shape), dtype=dtype).view(shape)


def _key(row: Tensor) -> bytes:
    return hashlib.sha256(row.contiguous().numpy().tobytes()).digest()


@contextmanager
def states_between(model: PreTrainedModel, count: int) -> Iterator[dict[int, Tensor]]:
    """Within the block: layer → what it puts out in the model's forward, of `count` layers, evenly spread."""
    found: dict[int, Tensor] = {}
    hooks = []
    if count:
        _, layers = decoder_layers(model)
        chosen = torch.linspace(0, len(layers) - 1, min(count, len(layers))).round().int().tolist()
        hooks = [layers[index].register_forward_hook(_Recording(found, index)) for index in chosen]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _Recording:
    found: dict[int, Tensor]
    index: int

    def __call__(self, _module: nn.Module, _arguments: object, output: Any) -> None:
        self.found[self.index] = output[0] if isinstance(output, tuple) else output
