"""Which of a model's parameters are matrices of its layers, and which are something else."""

from __future__ import annotations

from torch import nn
from torch.nn import Parameter


def split_by_shape(model: nn.Module) -> tuple[list[Parameter], list[Parameter]]:
    """The parameters that require a gradient: (matrices of layers, everything else), each in the model's order.

    Embeddings have two axes as well, but a row is a token's own: no subspace of their gradients means anything.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim == 2 and id(weight) not in embeddings]
    chosen = {id(weight) for weight in matrices}
    return matrices, [weight for weight in trained if id(weight) not in chosen]
