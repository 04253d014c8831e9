"""A net with all kinds of parameters, and text-like training of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from publisher.recipe import Alignment, Optimizer

RANK = 48
#: Adafactor's is relative to the weights, GradNormLoRP's updates have few entries.
RATES = dict.fromkeys(Optimizer, 3e-3) | {Optimizer.ADAFACTOR: 0.1, Optimizer.GRADNORMLORP: 0.02}


class Net(nn.Module):
    """Matrices large enough for 8-bit moments (4,096 entries and more), also projected ones; wide and tall."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(300, 96)
        self.up, self.norm, self.down = nn.Linear(96, 192), nn.LayerNorm(192), nn.Linear(192, 96)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(self.norm(self.up(self.embedding(tokens)).relu()))


def alignment(optimizer: Optimizer) -> Alignment:
    return Alignment.model_validate(
        {"corpora": [{"name": "sea"}], "optimizer": optimizer, "learning_rate": RATES[optimizer], "rank": RANK}
    )


def train(net: Net, optimizer: TorchOptimizer, steps: range) -> list[float]:
    """Mean square losses of the steps; each step's data come from its number."""
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step % 4)
        device = net.up.weight.device
        tokens, wanted = torch.randint(300, (32,), generator=generator), torch.randn(32, 96, generator=generator)
        tokens, wanted = tokens.to(device), wanted.to(device)
        optimizer.zero_grad()
        loss = (net(tokens) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
