"""One training of a benchmark, said once: what gpu_lora runs is what gpu_predicted predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from publisher.architecture.geometry import LayerWidths
from tests.benchmarks.gpu_lora import Setup
from tests.benchmarks.gpu_models import geometry_of, write_random
from tests.benchmarks.gpu_report import floor

#: bytes of a weight in NF4, with its share of the scales of its scales, and in bf16
_NF4, _BF16 = 0.5 + 1 / 64 + 4 / 64 / 256, 2.0


@dataclass(frozen=True)
class Case:
    """A LoRA of rank 8 on a model of these widths: `micros` times `micro` sequences of `length` tokens a step.

    `name` is unique within `benchmark`; cases of one `model` train the same files. `widths` None: nothing is pruned.
    """

    benchmark: str
    name: str
    model: str
    config: Mapping[str, Any]
    widths: tuple[LayerWidths, ...] | None
    length: int
    micro: int = 1
    micros: int = 1
    four_bit: bool = True
    checkpointing: bool = True
    autocast: bool = False

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.length * self.micro * self.micros

    def setup(self, folder: str, device: str, steps: int) -> Setup:
        return Setup(
            folder,
            device,
            self.length,
            self.micro,
            self.micros,
            steps,
            checkpointing=self.checkpointing,
            autocast=self.autocast,
        )

    def folder(self, work: Path) -> Path:
        """Of its model's files."""
        return work / self.model.replace(" ", "-").replace(",", "")

    def written(self, work: Path, device: str, steps: int) -> Setup:
        """Its model's files are in its folder, made unless they are there."""
        folder = self.folder(work)
        write_random(folder, self.config, device, widths=self.widths, four_bit=self.four_bit)
        return self.setup(str(folder), device, steps)

    @property
    def floor(self) -> float:
        """Seconds of a step at the least: 2 operations a weight and token for each pass (forward, by its inputs
        backward, and forward again where activations are), and reading the weights in each pass of a micro-batch.

        Left out are attention, the LoRA, and what is read and written besides weights.
        """
        passes = 3 if self.checkpointing else 2
        in_layers, head = self._weights
        operations = 2 * self.tokens * (passes * in_layers + 2 * head)
        moved = self.micros * (passes * in_layers * (_NF4 if self.four_bit else _BF16) + 2 * head * _BF16)
        return floor(operations, moved)

    @cached_property
    def _weights(self) -> tuple[int, int]:
        """Of matrices in the layers, and of the head."""
        geometry = geometry_of(self.config)
        shapes = geometry.tensor_shapes(self.widths)
        layers = sum(prod(shape) for name, shape in shapes.items() if name.startswith(geometry.layer_prefix))
        return layers, int(self.config["vocab_size"] * self.config["hidden_size"])
