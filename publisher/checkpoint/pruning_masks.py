"""What all kinds of masks answer, whatever pruning removed: heads, neurons and experts (masks.py) or single weights
(weight_masks.py). Who asks for one of these needs not know which kind it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.structure import Shape
from publisher.manifest.manifest import Manifest

if TYPE_CHECKING:
    from publisher.checkpoint.weight_masks import WeightMasks


@dataclass(frozen=True)
class KeptIndices:
    """`indices` (sorted, int64, shape (kept,)) of an axis that is `full` long in the base model."""

    indices: Tensor
    full: int

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class MaskedParameter:
    """A parameter of a layer: its shapes in the base model and in the checkpoint, and the axis that lost entries."""

    full: Shape
    left: Shape
    cut: tuple[int, KeptIndices] | None = None

    def along(self, axis: int) -> KeptIndices | None:
        """What is left of `axis`; None: all of it."""
        return self.cut[1] if self.cut is not None and self.cut[0] == axis else None


class PruningMasks(Protocol):
    """What a checkpoint kept of its base model."""

    @property
    def update_masks(self) -> WeightMasks | None:
        """The masks that an update of a matrix goes through, in training as on the base model: (B A) ∘ M has no low
        rank, so it is merged there, and no adapter holds it. None: an update needs no mask, wherever it is."""

    @property
    def count_as_weights(self) -> bool:
        """Whether the masks file is part of what the checkpoint's weights take, being as large as to matter."""

    def layer_of(self, name: str) -> int | None:
        """The layer of a parameter or of an adapter's tensor; None: it is in none that the masks describe.

        Raises RequestFault naming it if the checkpoint has no such layer.
        """

    def parameter(self, name: str) -> MaskedParameter | None:
        """Of the base model's parameter, whatever stands before its layer's name: `….layers.4.mlp.up_proj.weight`.

        None: the masks describe no such parameter. Raises as `layer_of`.
        """

    def shapes_left(self) -> Mapping[str, Shape]:
        """Of parameters in the layers, by the names that modules have once the checkpoint is loaded: all of them, or at
        least those that lost something."""

    def mask_of(self, weight: str) -> Tensor | None:
        """Bool, of the weight's own shape, True where single weights are kept; None: all that are left."""

    def fit(self, geometry: Geometry) -> bool:
        """Whether a model of this structure can be the base model, as far as the masks tell."""

    def unfit(self, shapes: Mapping[str, Shape], *, base: bool = False) -> Iterator[str]:
        """Where parameters in files, by their names there, have not the shapes that the masks leave, a clause each.

        `base`: the files are the base model's, which may hold more than a model has: buffers, layers for MTP.
        """

    def values(self, shapes: Mapping[str, Shape]) -> tuple[int, int]:
        """How many parameters the base model and the checkpoint have, if the checkpoint's files hold `shapes`."""

    def contradictions(self, manifest: Manifest, config: Mapping[str, Any]) -> Iterator[str]:
        """Where masks, `manifest` and `config` (config.json) say different things, a clause each.

        The manifest's own widths are known to be of as many layers as each other, and as config.json has.
        """

    def left(self, geometry: Geometry) -> tuple[Sequence[LayerWidths], int]:
        """Widths of all layers, and parameters, of the base model of this structure once it is pruned."""

    def kept_shares(self, manifest: Manifest) -> dict[str, list[float]]:
        """In words what lost something → the share of it that is left in each layer."""
