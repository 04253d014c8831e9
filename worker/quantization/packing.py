"""NF4 of one weight, a block of it in memory at a time: the same bytes as bitsandbytes makes of the whole.

Blocks of 64 weights are quantized on their own (arXiv 2305.14314, section 3); only the second quantization, of their
scales, needs all scales. bitsandbytes computes in fp32 on a CPU, which takes over 20 bytes a weight for a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import ceil, prod

import torch
from bitsandbytes.functional import (
    QuantState,
    dequantize_blockwise,
    get_4bit_type,
    quantize_4bit,
    quantize_blockwise,
)
from torch import Tensor
from torch.nn import functional

from publisher.weights.writing import Entry

BLOCK, NESTED_BLOCK = 64, 256
#: name of the note on shape and types that bitsandbytes keeps beside a weight
STATE = "quant_state.bitsandbytes__nf4"
_CODE, _NESTED_CODE = 16, 256


def packed_entries(name: str, shape: tuple[int, ...]) -> list[Entry]:
    """What a 4-bit weight `name` of `shape` takes in a file, but for its note (`STATE`), whose size varies."""
    weights = prod(shape)
    blocks = ceil(weights / BLOCK)
    return [
        Entry(name, "U8", (ceil(weights / 2), 1)),
        Entry(f"{name}.absmax", "U8", (blocks,)),
        Entry(f"{name}.nested_absmax", "F32", (ceil(blocks / NESTED_BLOCK),)),
        Entry(f"{name}.nested_quant_map", "F32", (_NESTED_CODE,)),
        Entry(f"{name}.quant_map", "F32", (_CODE,)),
    ]


def pack(
    parts: Iterable[Tensor], shape: tuple[int, ...], device: torch.device, write: Callable[[int, Tensor], None]
) -> dict[str, Tensor]:
    """Quantize a weight of `shape` whose rows come in `parts`; all are cast to bf16 first.

    `write(first, rows)` gets the packed values, uint8 `(rows, 1)` from row `first` on, in order. Returns the rest by
    name (`absmax`, `quant_map`, …), on the CPU.
    """
    scales, first = [], 0
    for part in _whole_blocks(parts):
        values, state = quantize_4bit(part.to(device), blocksize=BLOCK, quant_type="nf4")
        write(first, values)
        scales.append(state.absmax)
        first += len(values)
    return _state(torch.cat(scales), shape)


def round_trip(weight: Tensor) -> Tensor:
    """The values that `weight` has when it was published in 4 bits, in bf16."""
    grid = Grid(weight)
    rounded = grid.nearest(grid.blocks, grid.scales[:, None], grid.stored[:, None])
    return rounded.flatten()[: weight.numel()].view_as(weight)


class Grid:
    """The values that weights can have in 4 bits: 16 shares of the scale of each block of 64.

    `blocks` float32 `(blocks, 64)`: the values of `weight` in bf16, in order, and zeros behind them. `scales`
    `(blocks,)`: the largest magnitude of each; `stored`: what the second quantization makes of that.
    """

    def __init__(self, weight: Tensor) -> None:
        values = weight.detach().to(torch.bfloat16).float().flatten()
        self.blocks = functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)
        self.scales = self.blocks.abs().amax(1)
        offset = self.scales.mean()
        self.stored = dequantize_blockwise(*quantize_blockwise(self.scales - offset, blocksize=NESTED_BLOCK)) + offset
        self._code = get_4bit_type("nf4", device=weight.device)
        self._between = (self._code[1:] + self._code[:-1]) / 2

    def nearest(self, values: Tensor, scales: Tensor, stored: Tensor) -> Tensor:
        """bf16: what becomes of `values`, float32 numbers of bf16, with `scales` and `stored` of the blocks that they
        lie in, which broadcast to them."""
        shares = values / scales.clamp_min(torch.finfo(torch.float32).tiny)
        nearest = torch.bucketize(shares, self._between, out_int32=True)
        rounded: Tensor = self._code[nearest] * stored
        return rounded.to(torch.bfloat16)


def _whole_blocks(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """The values of `parts` in bf16 and in order, in pieces of whole blocks; the last may end within a block."""
    rest = torch.empty(0, dtype=torch.bfloat16)
    for part in parts:
        values = torch.cat([rest, part.to(torch.bfloat16).flatten()])
        whole = len(values) // BLOCK * BLOCK
        if whole:
            yield values[:whole]
        rest = values[whole:].clone()
    if len(rest):
        yield rest


def _state(scales: Tensor, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The second quantization, as bitsandbytes' quantize_4bit does it with compress_statistics."""
    offset = scales.mean()
    quantized, nested = quantize_blockwise(scales - offset, blocksize=NESTED_BLOCK)
    state = QuantState(
        absmax=quantized,
        shape=torch.Size(shape),
        dtype=torch.bfloat16,
        blocksize=BLOCK,
        code=get_4bit_type("nf4", device=scales.device),
        quant_type="nf4",
        offset=offset,
        state2=nested,
    )
    return {key: value.cpu() for key, value in state.as_dict(packed=True).items()}
