"""Embeddings and LM head in NF4. Importing this imports bitsandbytes, which takes seconds."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn

if TYPE_CHECKING:
    _Embedding = nn.Embedding
else:
    _Embedding = object


class FourBitTable(_Embedding):
    """Mixed into an embedding's own class, so that families that scale their embeddings go on doing it.

    `weight` is bitsandbytes' packed form; `table_dtype` is what comes out.
    """

    table_dtype: torch.dtype

    def forward(self, tokens: Tensor) -> Tensor:
        """The class's own forward on a dense table of those rows alone that `tokens` name."""
        packed, padding = self._parameters["weight"], self.padding_idx
        named, positions = torch.unique(tokens, return_inverse=True)
        table = rows_of(packed, named, self.table_dtype)
        self._parameters["weight"] = nn.Parameter(table, requires_grad=False)
        self.padding_idx = None
        try:
            return super().forward(positions)
        finally:
            self._parameters["weight"], self.padding_idx = packed, padding

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        state = getattr(self.weight, "quant_state", None)
        if state is not None:
            destination |= {f"{prefix}weight.{key}": value for key, value in state.as_dict(packed=True).items()}


class FourBitHead(Linear4bit):  # type: ignore[misc]
    """An LM head in NF4; `tied`: its weight is that of the embeddings, which save it."""

    tied = False

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self.tied:
            nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)
        else:
            super()._save_to_state_dict(destination, prefix, keep_vars)


def make_table(embedding: Any) -> None:
    """Turn an embedding without weights (on the meta device) into one in NF4; its dtype is what will come out."""
    if isinstance(embedding, FourBitTable) or not isinstance(embedding, nn.Embedding):
        return
    _become_table(embedding)


def _become_table(embedding: Any) -> None:
    dtype, weight = embedding.weight.dtype, embedding.weight.data
    embedding.__class__ = _table_class(type(embedding))
    embedding.table_dtype = dtype
    embedding.source_cls = nn.Embedding  # what transformers asks of the modules that it quantizes
    embedding.weight = Params4bit(weight, compress_statistics=True, quant_type="nf4", module=embedding)


def make_head(head: Any) -> None:
    """Turn what transformers made of the head into one that may share the embeddings' weight.

    On CPUs with bf16 instructions bitsandbytes would repack that weight in place, which the embeddings cannot read.
    """
    if isinstance(head, Linear4bit):
        head.__class__ = FourBitHead
        head.support_avx512bf16_for_cpu = False


def share_if_tied(embedding: nn.Module, head: nn.Module | None) -> None:
    """After loading: a head that was tied to the embeddings by transformers leaves saving to them.

    Tying, transformers makes a bias as long as the weight has rows, of which the packed one has others.
    """
    if isinstance(head, FourBitHead):
        head.tied = head.weight is embedding.weight
        if head.bias is not None:
            head.bias.data = head.bias.data[: head.out_features]


def _table_class(embedding: type[nn.Embedding]) -> type[nn.Embedding]:
    return type(f"FourBit{embedding.__name__}", (FourBitTable, embedding), {})


def rows_of(weight: Any, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Dense rows `(n, width)` of a packed table `(vocab, width)`."""
    state = weight.quant_state
    vocab, width = state.shape
    if width % state.blocksize:  # rows begin within blocks
        return dense(weight, dtype)[rows]
    per_row = width // state.blocksize
    blocks = (rows[:, None] * per_row + torch.arange(per_row, device=rows.device)).flatten()
    packed = weight.data.view(vocab, width // 2)[rows].reshape(-1, 1)
    part = QuantState(
        absmax=_scales(state, blocks),
        shape=torch.Size((len(rows), width)),
        code=state.code,
        blocksize=state.blocksize,
        quant_type=state.quant_type,
        dtype=dtype,
    )
    values: Tensor = dequantize_4bit(packed, part)
    return values


def is_misread(weight: Any) -> bool:
    """Whether bitsandbytes (0.50.2) takes a packed weight for another: on CPUs, rows of a multiple of 16 weights that
    are no whole blocks."""
    columns, block = weight.quant_state.shape[-1], weight.quant_state.blocksize
    return bool(weight.device.type == "cpu" and columns % 16 == 0 and columns % block)


def dense(weight: Any, dtype: torch.dtype) -> Tensor:
    """All of a packed weight, `(rows, columns)`: what a product in `dtype` multiplies with."""
    if is_misread(weight):
        return _unpacked(weight.data.flatten(), weight.quant_state).to(dtype)
    state = copy.copy(weight.quant_state)
    state.dtype = dtype
    values: Tensor = dequantize_4bit(weight.data, state)
    return values


def _unpacked(packed: Tensor, state: Any) -> Tensor:
    """fp32, from two values a byte."""
    nearest = torch.stack([packed >> 4, packed & 15], 1).flatten()[: state.shape.numel()]
    scales = _scales(state, torch.arange(len(state.absmax), device=packed.device)).repeat_interleave(state.blocksize)
    values: Tensor = state.code[nearest.int()] * scales[: len(nearest)]
    return values.view(state.shape)


def _scales(state: Any, blocks: Tensor) -> Tensor:
    """fp32 scales of these blocks, from 8-bit ones and the scales of these."""
    nested = state.state2
    if nested is None:
        coarse: Tensor = state.absmax[blocks]
        return coarse
    fine: Tensor = nested.code[state.absmax[blocks].long()] * nested.absmax[blocks // nested.blocksize] + state.offset
    return fine
