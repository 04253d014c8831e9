"""Masks of a model that lost nothing: with them what is for adapters of a checkpoint is for those of the base model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Shape
from publisher.checkpoint.pruning_masks import MaskedParameter
from publisher.manifest.manifest import Manifest


class NothingPruned:
    """PruningMasks that describe no parameter."""

    @property
    def update_masks(self) -> None:
        return None

    @property
    def count_as_weights(self) -> bool:
        return False

    def layer_of(self, name: str) -> int | None:
        return None

    def parameter(self, name: str) -> MaskedParameter | None:
        return None

    def shapes_left(self) -> dict[str, Shape]:
        return {}

    def mask_of(self, weight: str) -> None:
        return None

    def fit(self, geometry: Geometry) -> bool:
        return True

    def unfit(self, shapes: Mapping[str, Shape], *, base: bool = False) -> Iterator[str]:
        return iter(())

    def values(self, shapes: Mapping[str, Shape]) -> tuple[int, int]:
        stored = sum(map(prod, shapes.values()))
        return stored, stored

    def contradictions(self, manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
        return iter(())

    def left(self, geometry: Geometry) -> tuple[Sequence[LayerWidths], int]:
        return geometry.full_widths, geometry.parameters(geometry.full_widths)

    def kept_shares(self, manifest: Manifest) -> dict[str, list[float]]:
        return {}
