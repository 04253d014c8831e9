"""The optimizers that a recipe can name (publisher/recipe/optimizers declares each), made for a model.

Methods for matrices (GaLore, APOLLO, GradNormLoRP, Lotus, Muon) train the layers' matrices; embeddings, norms and
biases go with the optimizer that they name beside them. Nothing decays weights: they start from a trained model.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import resolve_name

import torch
from torch import nn
from torch.nn import Parameter

from publisher.errors import RequestFault
from publisher.recipe import Alignment, Optimizer
from publisher.recipe.optimizers.register import optimizer_spec
from publisher.recipe.optimizers.spec import OptimizerSpec
from worker.alignment.optimizers.combined import Combined
from worker.alignment.optimizers.parameters import split_by_shape

__all__ = ["make_optimizer", "require_packages"]


def require_packages(optimizer: Optimizer) -> None:
    """Raises RequestFault naming the pip command if this installation lacks what `optimizer` is made of."""
    package = optimizer_spec(optimizer).package
    if package is None:
        return
    try:
        import_module(package.module)
    except ImportError as error:
        raise RequestFault(
            f"optimizer {optimizer} needs the package {package.pip}, which this worker does not have: {error}.",
            field="recipe.alignment.optimizer",
            way_out=f"Install it (pip install {package.pip}), or name another optimizer.",
        ) from error


def make_optimizer(model: nn.Module, alignment: Alignment) -> torch.optim.Optimizer:
    """The optimizer of `alignment` over the parameters of `model` that require a gradient.

    `alignment.rank` is that of the projected gradients, at most a matrix's smaller side. Raises RequestFault if a
    package is missing.
    """
    require_packages(alignment.optimizer)
    declared = optimizer_spec(alignment.optimizer)
    matrices, others = split_by_shape(model)
    if declared.beside is None:
        return _made(declared, matrices + others, alignment)
    shared_out = ((declared, matrices), (optimizer_spec(declared.beside), others))
    parts = [_made(spec, parameters, alignment) for spec, parameters in shared_out if parameters]
    return parts[0] if len(parts) == 1 else Combined(parts)


def _made(spec: OptimizerSpec, parameters: list[Parameter], alignment: Alignment) -> torch.optim.Optimizer:
    projected = {"rank": alignment.rank} if spec.has_rank else {}
    make = resolve_name(spec.made_by)
    made: torch.optim.Optimizer = make(parameters, lr=alignment.learning_rate, **projected, **spec.options)
    return made
