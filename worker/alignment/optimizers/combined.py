"""Several optimizers, each for parameters of its own, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


class Combined(Optimizer):
    """Steps all of `parts`. Their groups, and one state for all parameters, are this optimizer's own.

    So a learning rate that is set here is theirs, and `state_dict` holds everything, by the order of the groups.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups
        for part in parts:
            self.state.update(part.state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Tensor | float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Give every part the state, and the groups that are its own."""
        start = 0
        for part in self.parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[start : start + count]
            part.state = self.state
            start += count
