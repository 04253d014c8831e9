"""The optimizers that a recipe can name, and where each comes from.

adamw, muon, adafactor: torch. adamw_8bit: bitsandbytes. galore_adamw: the authors' package galore-torch;
galore_adamw_8bit: its projections around bitsandbytes' AdamW8bit (galore.py). apollo_adamw, gradnormlorp, lotus:
written here from their papers; none has a package to depend on (APOLLO's may not be used commercially).

Methods for matrices (GaLore, APOLLO, GradNormLoRP, Lotus, Muon) train the layers' matrices; embeddings, norms and
biases go with AdamW beside them. Nothing decays weights: they start from a trained model.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter

from publisher.errors import RequestFault
from publisher.recipe import Alignment, Optimizer
from worker.alignment.optimizers.apollo import Apollo
from worker.alignment.optimizers.combined import Combined
from worker.alignment.optimizers.gradnormlorp import GradNormLoRP
from worker.alignment.optimizers.lotus import Lotus
from worker.alignment.optimizers.parameters import split_by_shape

__all__ = ["make_optimizer", "require_packages"]

_BETAS = (0.9, 0.95)

#: optimizer → (module that it needs, what pip calls it)
_PACKAGES = {
    Optimizer.GALORE_ADAMW: ("galore_torch", "galore-torch"),
    Optimizer.GALORE_ADAMW_8BIT: ("galore_torch", "galore-torch"),
}

#: (parameters, learning rate, rank) → optimizer
Maker = Callable[[list[Parameter], float, int], torch.optim.Optimizer]


def require_packages(optimizer: Optimizer) -> None:
    """Raises RequestFault naming the pip command if this installation lacks what `optimizer` is made of."""
    module, package = _PACKAGES.get(optimizer, ("", ""))
    try:
        if module:
            import_module(module)
    except ImportError as error:
        raise RequestFault(
            f"optimizer {optimizer} needs the package {package}, which this worker does not have: {error}.",
            field="recipe.alignment.optimizer",
            way_out=f"Install it (pip install {package}), or name another optimizer.",
        ) from error


def make_optimizer(model: nn.Module, alignment: Alignment) -> torch.optim.Optimizer:
    """The optimizer of `alignment` over the parameters of `model` that require a gradient.

    `alignment.rank` is that of the projected gradients, at most a matrix's smaller side. Raises RequestFault if a
    package is missing.
    """
    optimizer, rate, rank = alignment.optimizer, alignment.learning_rate, alignment.rank
    require_packages(optimizer)
    matrices, others = split_by_shape(model)
    if optimizer in _FOR_ALL:
        return _FOR_ALL[optimizer](matrices + others, rate, rank)
    for_others = _adamw_8bit if optimizer is Optimizer.GALORE_ADAMW_8BIT else _adamw
    parts = [
        make(parameters, rate, rank)
        for make, parameters in ((_FOR_MATRICES[optimizer], matrices), (for_others, others))
        if parameters
    ]
    return parts[0] if len(parts) == 1 else Combined(parts)


def _adamw(parameters: list[Parameter], rate: float, rank: int) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=rate, betas=_BETAS, weight_decay=0.0, fused=True)


def _adamw_8bit(parameters: list[Parameter], rate: float, rank: int) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    made: torch.optim.Optimizer = AdamW8bit(parameters, lr=rate, betas=_BETAS, weight_decay=0.0)
    return made


def _adafactor(parameters: list[Parameter], rate: float, rank: int) -> torch.optim.Optimizer:
    """The rate is relative to each tensor's root mean square, as in its paper: try 10 to 100 times AdamW's."""
    return torch.optim.Adafactor(parameters, lr=rate, weight_decay=0.0)


def _muon(parameters: list[Parameter], rate: float, rank: int) -> torch.optim.Optimizer:
    """Updates as large as AdamW's (arXiv 2502.16982), so that one learning rate fits both."""
    return torch.optim.Muon(parameters, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")


def _galore(parameters: list[Parameter], rate: float, rank: int) -> torch.optim.Optimizer:
    from galore_torch import GaLoreAdamW

    from worker.alignment.optimizers.galore import GAP, SCALE

    groups: list[dict[str, Any]] = [
        {"params": parameters, "rank": rank, "update_proj_gap": GAP, "scale": SCALE, "proj_type": "std"}
    ]
    made: torch.optim.Optimizer = GaLoreAdamW(groups, lr=rate, betas=_BETAS, no_deprecation_warning=True)
    return made


def _galore_8bit(parameters: list[Parameter], rate: float, rank: int) -> torch.optim.Optimizer:
    from worker.alignment.optimizers.galore import GaLoreAdamW8bit

    made: torch.optim.Optimizer = GaLoreAdamW8bit(parameters, lr=rate, rank=rank, betas=_BETAS)
    return made


_FOR_ALL: dict[Optimizer, Maker] = {
    Optimizer.ADAMW: _adamw,
    Optimizer.ADAMW_8BIT: _adamw_8bit,
    Optimizer.ADAFACTOR: _adafactor,
}
_FOR_MATRICES: dict[Optimizer, Maker] = {
    Optimizer.GALORE_ADAMW: _galore,
    Optimizer.GALORE_ADAMW_8BIT: _galore_8bit,
    Optimizer.APOLLO_ADAMW: lambda parameters, rate, rank: Apollo(parameters, lr=rate, rank=rank, betas=_BETAS),
    Optimizer.GRADNORMLORP: lambda parameters, rate, rank: GradNormLoRP(parameters, lr=rate, rank=rank, betas=_BETAS),
    Optimizer.LOTUS: lambda parameters, rate, rank: Lotus(parameters, lr=rate, rank=rank, betas=_BETAS),
    Optimizer.MUON: _muon,
}
