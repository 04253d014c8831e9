"""A tiny base model of a family and what pruning leaves of it, the way that a job goes: geometry from the config,
selection, cutting of the files, the pruned config, transformers' loading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

import publisher.checkpoint  # noqa: F401 - teaches transformers layers of different widths
from publisher.architecture.geometry import Geometry
from publisher.base_model.weights import DTYPES
from publisher.errors import PublisherError, UnsupportedModel
from publisher.families.introspection import geometry_of
from publisher.recipe import Pruning
from worker.context import RecordingContext
from worker.families.reference import Float64
from worker.families.tiny import config_class, tiny_base, tiny_tokens
from worker.pruning.config import pruned_config
from worker.pruning.cutting import Kept
from worker.pruning.selection import importance_key, kept_units, kept_widths
from worker.stages.prune.units import write_cut
from worker.storage.folder import write_json
from worker.streaming.files import TensorFiles

#: Odd numbers remain (3 of 4 KV heads, 33 of 48 neurons), and layers differ: the first and the last stay whole.
PRUNING = Pruning.model_validate(
    {"method": "structured", "criterion": "random", "ratio": 0.3, "protect_first": 1, "protect_last": 1}
)


@dataclass(frozen=True)
class Pair:
    """Both as folders, in fp32; `tokens` (rows, length) to compare them on."""

    base: Path
    pruned: Path
    geometry: Geometry
    kept: Kept
    tokens: Tensor


def pruned_pair(family: str, folder: Path, options: Mapping[str, bool] | None = None) -> Pair:
    """Write a tiny base model of the family and prune it; raises UnsupportedModel with what stands in the way.

    `options` are switches of its config that are not as by default.
    """
    transformers_logging.disable_progress_bar()
    refuse_by_class(family)
    base, pruned = folder / "base", folder / "pruned"
    pruned.mkdir(parents=True)
    with third_party("transformers cannot make a tiny model of it"):
        model = tiny_base(family, options or {})
        model.save_pretrained(base)
    raw = json.loads((base / "config.json").read_bytes())
    with third_party("its layers cannot be described"):
        geometry = geometry_of(raw)
    _refuse_files(base, geometry)
    kept = kept_units(geometry, PRUNING, _random_importance(geometry))
    write_json(pruned / "config.json", pruned_config(raw, geometry, kept_widths(geometry, kept)))
    write_cut(base, pruned, geometry, kept, RecordingContext())
    return Pair(base, pruned, geometry, kept, tiny_tokens(model.config))


def refuse_by_class(family: str) -> None:
    """What the config class alone says against a family."""
    cls = config_class(family)
    if cls.sub_configs:
        raise UnsupportedModel(
            f"it is not one language model: its config is made of {', '.join(sorted(cls.sub_configs))}"
        )
    if not getattr(cls, "base_model_tp_plan", None):
        raise UnsupportedModel("transformers has no tensor-parallel plan for it, which says what is cut together")


def exact(folder: Path) -> PreTrainedModel:
    """In float64, experts one by one: the kernel for all of them at once takes no float64."""
    with Float64():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, experts_implementation="eager", local_files_only=True
        )
    return model.eval()


@contextmanager
def third_party(what: str) -> Iterator[None]:
    """Any error of a family's own code, as the reason against it.

    A hundred families of other people's code fail in ways that nobody can list; here, and only here, all of them mean
    the same: this family is not supported.
    """
    try:
        yield
    except PublisherError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise UnsupportedModel(f"{what} ({said})") from error


def _refuse_files(base: Path, geometry: Geometry) -> None:
    """What registering the model would say of its files."""
    stored = TensorFiles.open(base).tensors
    if {name: tensor.shape for name, tensor in stored.items()} != geometry.tensor_shapes():
        raise UnsupportedModel("its files hold other tensors than its config asks for")
    strange = sorted({tensor.dtype for tensor in stored.values()} - set(DTYPES))
    if strange:
        raise UnsupportedModel(f"its files hold tensors of type {', '.join(strange)}, which are no weights")


def _random_importance(geometry: Geometry) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        importance_key(geometry, layer, unit): torch.rand(units, generator=generator)
        for layer in range(geometry.layers)
        for unit, units in geometry.kind(layer).units.items()
    }
