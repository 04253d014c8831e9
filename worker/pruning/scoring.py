"""What a criterion may look at to score heads, neurons and experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from publisher.architecture.geometry import Geometry
from publisher.recipe.criteria.spec import CriterionSpec
from publisher.recipe.declared import NotDeclared
from worker.models.measure import compute_dtype
from worker.pruning.input_sums import Weigh, sums_by_inputs
from worker.pruning.scores import scored_tensors, square_sums
from worker.streaming.blocks import READERS, BlockReader
from worker.streaming.files import TensorFiles
from worker.streaming.model import LayerStream


@dataclass(frozen=True)
class ScoringWork:
    """The base model in the folder `base`, to be scored by `criterion` on `device`.

    `text` reads the calibration text, int64 `(samples, length)`. What is large lies in the folder `scratch`. `progress`
    is told (done, in all, of what) and may raise to end the work. Scores are kept for all recipes that agree in what
    the criterion declares to depend on, so it is handed nothing else: `seed` and `read_text` raise NotDeclared.
    """

    criterion: CriterionSpec
    base: Path
    geometry: Geometry
    recipe_seed: int
    device: str
    scratch: Path
    text: Callable[[], Tensor]
    progress: Callable[[int, int, str], None]

    @property
    def seed(self) -> int:
        if not self.criterion.depends_on_seed:
            raise NotDeclared(f"criterion {self.criterion.name} asks for the seed and declares neither draws nor text")
        return self.recipe_seed

    def read_text(self) -> Tensor:
        """int64 `(samples, length)`"""
        if not self.criterion.reads_text:
            raise NotDeclared(f"criterion {self.criterion.name} asks for text and does not declare reads_text")
        return self.text()

    def stream(self) -> LayerStream:
        """The model, a layer in memory at a time."""
        return LayerStream(self.base, self.device, compute_dtype(self.device))

    def passes(self, done: int, total: int) -> None:
        """Reports passes of text through layers."""
        self.progress(done, total, "passes")

    def sums_by_inputs(self, weigh: Weigh) -> dict[str, Tensor]:
        """`{importance_key: (units,)}`: what `weigh` makes of weights and the norms of their inputs, summed."""
        sequences = self.read_text()
        return sums_by_inputs(self.stream(), self.geometry, sequences, weigh, scratch=self.scratch, report=self.passes)

    def squares(self) -> Iterator[tuple[str, Tensor]]:
        """Sums of squares of each tensor that units own, in the order in which they lie on disk."""
        stored, wanted = TensorFiles.open(self.base), scored_tensors(self.geometry)
        names = sorted(wanted.keys() & stored.tensors.keys(), key=stored.place)
        with BlockReader(stored) as reader, ThreadPoolExecutor(READERS) as threads:

            def squares(name: str) -> Tensor:
                return square_sums(reader.blocks(name), stored.tensors[name].shape, wanted[name][1].axis)

            for done, (name, sums) in enumerate(zip(names, threads.map(squares, names), strict=True), 1):
                yield name, sums
                self.progress(done, len(names), "tensors")


#: what a criterion's declaration names
Score = Callable[[ScoringWork], dict[str, Tensor]]
