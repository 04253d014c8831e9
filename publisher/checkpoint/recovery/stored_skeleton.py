"""A model's modules as its files and masks tell, where transformers is not installed.

What lies in a folder of weights has its names and shapes in the headers; of a checkpoint whose weights are not at hand
the masks know every parameter of the layers. Two axes and the name `weight` make a linear layer, apart from the
embeddings: that a few of those are routers, which PEFT adapts otherwise, matters to nobody who did not adapt them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.architecture.structure import Shape
from publisher.checkpoint.integrity import CONFIG
from publisher.checkpoint.model_weights import ModelWeights
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.skeleton import Kind, Module, Skeleton, is_of_experts
from publisher.errors import RequestFault
from publisher.files.json_object import read_object
from publisher.weights.parameters import read_parameters

_DECODER, _EMBEDDINGS, _HEAD = "model", "embed_tokens", "lm_head"


def stored_skeleton(folder: Path, masks: PruningMasks) -> Skeleton:
    """As `skeleton_of`. Embeddings and head that no file names are taken to be called as in most families."""
    sizes = _text_config(read_object(folder / CONFIG))
    vocabulary, hidden = _size(folder, sizes, "vocab_size"), _size(folder, sizes, "hidden_size")
    stored = read_parameters(folder, but=MASKS).shapes if ModelWeights(folder).here else {}
    shapes = {**stored, **masks.shapes_left()}
    decoder = next((name.partition(".")[0] for name in shapes if _in_layers(name)), _DECODER)
    ends = [name for name, shape in shapes.items() if shape == (vocabulary, hidden) and not _in_layers(name)]
    embeddings = _only(ends, f"{decoder}.", inside=True) or f"{decoder}.{_EMBEDDINGS}"
    head = _only(ends, f"{decoder}.", inside=False) or _HEAD
    shapes = {f"{embeddings}.weight": (vocabulary, hidden), **shapes, f"{head}.weight": (vocabulary, hidden)}
    modules = _modules(shapes, embeddings)
    return Skeleton(modules, embeddings, head, vocabulary, decoder, any(map(is_of_experts, modules)))


def _modules(shapes: Mapping[str, Shape], embeddings: str) -> dict[str, Module]:
    """With the modules that only hold others, as targets may name them."""
    own: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        module, _, parameter = name.rpartition(".")
        for end in [match.start() for match in re.finditer(r"\.", module)]:
            own.setdefault(module[:end], {})
        own.setdefault(module, {})[parameter] = shape
    return {name: Module(_kind(name, parameters, embeddings), parameters) for name, parameters in own.items()}


def _kind(name: str, parameters: Mapping[str, Shape], embeddings: str) -> Kind:
    if name == embeddings:
        return Kind.EMBEDDING
    return Kind.LINEAR if len(parameters.get("weight", ())) == 2 else Kind.OTHER


def _in_layers(name: str) -> bool:
    return re.search(r"\.\d+\.", name) is not None


def _only(weights: list[str], decoder: str, *, inside: bool) -> str | None:
    found = [name.removesuffix(".weight") for name in weights if name.startswith(decoder) == inside]
    return found[0] if len(found) == 1 else None


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Of models that are more than a decoder, the part that tells of it."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _size(folder: Path, config: Mapping[str, Any], key: str) -> int:
    size = config.get(key)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise RequestFault(
            f"{folder / CONFIG} has no {key} that is a number.",
            way_out="Install transformers, which knows this family's names: pip install 'loram-publisher[train]'.",
        )
    return size
