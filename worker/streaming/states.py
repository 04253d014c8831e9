"""Hidden states that wait for their turn: in memory while they are few, else in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: bytes that are kept in memory; more go to disk from the first on
IN_MEMORY = 32 * 2**20


@dataclass(frozen=True)
class _Form:
    shape: torch.Size
    dtype: torch.dtype


class StateStore:
    """Tensors by name, `total` bytes at most in all. `folder` is the caller's to make and to remove."""

    def __init__(self, folder: Path, total: int, device: torch.device) -> None:
        self._folder = folder if total > IN_MEMORY else None
        self._device = device
        self._held: dict[str, Tensor] = {}
        self._written: dict[str, _Form] = {}

    def put(self, name: str, states: Tensor) -> None:
        """Keep a copy, in place of what had this name."""
        states = states.detach().contiguous()
        if self._folder is None:
            self._held[name] = states.to("cpu", copy=True)
            return
        states = states.cpu()
        states.flatten().view(torch.uint8).numpy().tofile(self._folder / name)
        self._written[name] = _Form(states.shape, states.dtype)

    def get(self, name: str) -> Tensor:
        """On the device; the caller's own, unless it is in memory here."""
        if self._folder is None:
            return self._held[name].to(self._device)
        form = self._written[name]
        states = torch.from_numpy(np.fromfile(self._folder / name, dtype=np.uint8))
        return states.view(form.dtype).view(form.shape).to(self._device)

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        if self._folder is None:
            del self._held[name]
        else:
            del self._written[name]
            (self._folder / name).unlink()
