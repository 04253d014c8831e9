"""Weights that several processes hold in parts, one part each: torch's DTensor, sharded by FSDP."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of `tensor`, sharing its memory; a plain tensor is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """All of `tensor`. Every process has to ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def parted_like(whole: Tensor, tensor: Tensor) -> Tensor:
    """This process's part of `whole`, of which each process has a copy, where `tensor` is in parts."""
    if not isinstance(tensor, DTensor):
        return whole
    return distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)


def part_of_one_like(part: Tensor, tensor: Tensor) -> Tensor:
    """A tensor in as many parts as `tensor`, and of its shape, of which this process holds `part`."""
    assert isinstance(tensor, DTensor), "it was in parts when it was saved"
    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
