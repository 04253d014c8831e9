"""The modules of a model and the shapes of what they hold, without its weights: what adapters find their places in.

transformers says it best, by building the model on the meta device (built_skeleton.py). Where it is not installed, or
does not know the model, the masks and the headers of its files tell all that a LoRA asks (stored_skeleton.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import PruningMasks


class Kind(StrEnum):
    LINEAR = "linear"
    EMBEDDING = "embedding"
    OTHER = "other"


@dataclass(frozen=True)
class Module:
    """`parameters`: its own, not those of modules in it, with the buffers that are saved: name → shape."""

    kind: Kind
    parameters: Mapping[str, Shape]


@dataclass(frozen=True)
class Skeleton:
    """`modules` by dotted name, in the model's order. `vocabulary`: rows of the embeddings and of the head.

    `decoder`: what the names of the decoder's modules begin with (`model`, `transformer`). `head`: None of a model that
    has none but is adapted all the same. `experts`: whether layers have experts, which transformers holds in one tensor
    for all, whatever their files do, so that names in an adapter may be meant otherwise.
    """

    modules: Mapping[str, Module]
    embeddings: str
    head: str | None
    vocabulary: int
    decoder: str
    experts: bool = False

    @property
    def vocabulary_modules(self) -> frozenset[str]:
        return frozenset(filter(None, (self.embeddings, self.head)))


def is_of_experts(module: str) -> bool:
    return "experts" in module.split(".")


def skeleton_of(folder: Path, masks: PruningMasks) -> Skeleton:
    """Of the causal language model whose config.json is in `folder`: a checkpoint with these masks, or a base model.

    Raises RequestFault if the model cannot be built.
    """
    if find_spec("transformers") is not None:
        from publisher.checkpoint.recovery.built_skeleton import built_skeleton

        return built_skeleton(folder)
    from publisher.checkpoint.recovery.stored_skeleton import stored_skeleton

    return stored_skeleton(folder, masks)
