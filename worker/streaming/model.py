"""A causal language model whose decoder layers are read from disk one at a time.

Everything else (embeddings, rotary embeddings, masks, final norm, head) is transformers' own forward, so this works for
each family whose layers follow one another. What is in memory at once: one layer as it is stored, or embeddings and
head, never both.

    stream = LayerStream(folder, "cpu")
    inputs = stream.inputs(tokens)                         # (rows, length) → what enters layer 0
    hidden = inputs.hidden
    for index in range(stream.layers):
        with stream.layer(index) as layer:                 # its weights are there only in here
            hidden = call_layer(layer, hidden, inputs.arguments[index])
    with stream.head() as head:
        logits = head(tokens, hidden)
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

import publisher.checkpoint  # noqa: F401 - teaches transformers layers of different widths
from publisher.errors import UnsupportedModel
from publisher.files.reading import BASE, reading
from worker.models.device import is_gpu
from worker.streaming.capture import LayerInputs, Recorder, call_layer, standing_in
from worker.streaming.casting import cast_in_use
from worker.streaming.files import TensorFiles
from worker.streaming.placing import Placement


class Head(Protocol):
    def __call__(self, tokens: Tensor, hidden: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits `(rows, length, vocab)` of the last layer's `hidden` `(rows, length, hidden_size)`.

        `tokens` `(rows, length)` are the ones that `hidden` was made from; `positions` (int64): only those along
        the length. Differentiable by `hidden`.
        """


class LayerStream:
    """The model saved in `folder`, computing in `dtype` on `device`. Not for use by several threads at once.

    `skeleton` is the whole model without weights. Weights of linear layers stay in the type that they are stored in
    and are cast while they are multiplied (worker.streaming.casting); all others are cast when they are read.
    On a GPU the next layer is read while one computes, which takes the memory of two. Raises RequestFault naming the
    file or tensor if weights are missing, damaged or do not fit the config.
    """

    def __init__(self, folder: Path, device: torch.device | str, dtype: torch.dtype = torch.float32) -> None:
        transformers_logging.disable_progress_bar()
        self.device, self.dtype = torch.device(device), dtype
        with reading(BASE, folder / "config.json"):
            self.config = AutoConfig.from_pretrained(folder, local_files_only=True)
            self.skeleton = empty_model(self.config, dtype)
        self._path, self._stack = decoder_layers(self.skeleton)
        as_stored = cast_in_use(self.skeleton, dtype)
        self._placement = Placement(self.skeleton, TensorFiles.open(folder), self.device, dtype, as_stored)
        self._users_of_outside = 0
        self._ahead: tuple[int, Future[None]] | None = None
        self._reader = ThreadPoolExecutor(1) if is_gpu(self.device) else None
        self._layers_return_tuples = self._find_out_what_layers_return()

    @property
    def layers(self) -> int:
        return len(self._stack)

    def layer_name(self, index: int) -> str:
        """How the model calls the layer: "model.layers.3"."""
        return f"{self._path}.{index}"

    def inputs(self, tokens: Tensor) -> LayerInputs:
        """What `tokens` `(rows, length)` int64 become before layer 0, and what each layer is called with."""
        recorder = Recorder(self._layers_return_tuples)
        with self.outside(), torch.no_grad(), standing_in(self._stack, [recorder] * self.layers):
            self.skeleton.base_model(input_ids=tokens.to(self.device), use_cache=False)
        return LayerInputs(recorder.hidden[0], tuple(recorder.arguments))

    @contextmanager
    def layer(self, index: int, ahead: int | None = None) -> Iterator[nn.Module]:
        """The decoder layer with its weights, which nobody may keep; `ahead`: the layer that will be asked for next.

        Parameters require no gradient, unless the caller makes them. They may be written to, which changes no file.
        """
        self._fetch(index)
        if ahead is not None and self._reader is not None and 0 <= ahead < self.layers:
            self._ahead = ahead, self._reader.submit(self._placement.fill, self._names(ahead))
        try:
            yield self._stack[index]
        finally:
            self._placement.empty(self._names(index, parameters_only=True))

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Within, embeddings, final norm and head stay; around several calls of `inputs` they are read once."""
        if not self._users_of_outside:
            self._placement.fill(self._names(None))
            self._placement.handed_over(self._names(None))
        self._users_of_outside += 1
        try:
            yield
        finally:
            self._users_of_outside -= 1
            if not self._users_of_outside:
                self._placement.empty(self._names(None, parameters_only=True))

    @contextmanager
    def head(self) -> Iterator[Head]:
        """The final norm and the LM head, by the model's own forward."""
        with self.outside():
            yield self._logits

    def stored(self, index: int, parameter: str) -> list[str]:
        """Names in the files of the tensors that make up a layer's parameter "self_attn.q_proj.weight"."""
        return self._placement.stored(f"{self.layer_name(index)}.{parameter}")

    @torch.no_grad()
    def streamed_logits(self, tokens: Tensor) -> Tensor:
        """Logits `(rows, length, vocab)` of `tokens` `(rows, length)`: equal to those of the model loaded whole."""
        inputs = self.inputs(tokens)
        hidden = inputs.hidden
        for index in range(self.layers):
            with self.layer(index, ahead=index + 1) as layer:
                hidden = call_layer(layer, hidden, inputs.arguments[index])
        with self.head() as head:
            return head(tokens, hidden)

    def _logits(self, tokens: Tensor, hidden: Tensor, positions: Tensor | None = None) -> Tensor:
        through = Recorder(self._layers_return_tuples)

        def last(*_: Any, **__: Any) -> Tensor | tuple[Tensor]:
            return (hidden,) if self._layers_return_tuples else hidden

        kept = {} if positions is None else {"logits_to_keep": positions.to(self.device)}
        with standing_in(self._stack, [*[through] * (self.layers - 1), last]):
            output = self.skeleton(input_ids=tokens.to(self.device), use_cache=False, **kept)
        logits: Tensor = output.logits
        return logits

    def _fetch(self, index: int) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead[1].result()
            if ahead[0] != index:
                self._placement.empty(self._names(ahead[0], parameters_only=True))
        if ahead is None or ahead[0] != index:
            self._placement.fill(self._names(index))
        self._placement.handed_over(self._names(index))

    def _names(self, index: int | None, *, parameters_only: bool = False) -> list[str]:
        """Names in the skeleton of what a layer holds, or of what is outside of all layers."""
        start = f"{self._path}." if index is None else f"{self.layer_name(index)}."
        held = self._placement.parameters if parameters_only else self._placement.all_names
        return [name for name in held if name.startswith(start) != (index is None)]

    def _find_out_what_layers_return(self) -> bool:
        """Whether the model takes the first of what a layer returns, which turns a tensor into its first row."""
        recorder = Recorder(as_tuple=False)
        tokens = torch.zeros(2, 3, dtype=torch.int64, device=self.device)
        with self.outside(), torch.no_grad(), standing_in(self._stack, [recorder] * self.layers):
            output = self.skeleton.base_model(input_ids=tokens, use_cache=False)
        return any(states.dim() != 3 for states in [*recorder.hidden, output.last_hidden_state])


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Parameters take no memory; buffers, which no file holds, are real."""
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def decoder_layers(skeleton: PreTrainedModel) -> tuple[str, list[nn.Module]]:
    """The list of as many modules as the config says there are layers, and its name."""
    for name, module in skeleton.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == skeleton.config.num_hidden_layers:
            return name, list(module)
    raise UnsupportedModel(
        f"{type(skeleton).__name__} has no list of {skeleton.config.num_hidden_layers} decoder layers.",
        way_out="See publisher families.",
    )
