"""Reconstruction: what is left of a pruned layer takes over from what is gone, in closed form and before any training.

A matrix that lost columns (the attention's and the MLP's output projections) no longer puts out what the base model's
does, and every layer after it reads something else. So each is solved for anew by least squares, layer after layer:
W minimises Σ w |W z − y|² + λ |W − W₀|² over the tokens of a text, where z is what the matrix reads in the pruned
model, whose layers before it are reconstructed already; W₀ is the pruned weight; and y is what brings the residual
stream to where it is in the base model after the same matrix, earlier errors included. Each token weighs as much as
any other, w = 1 / |residual stream|², since a few have a hundred times the length; and λ is a share of the mean of
Σ w z², so that what the text says nothing of stays as it was.

An adapter learns by what comes back through the layers, so these have to answer to changes as the base model's do,
not only be right where the text leads them. So both models' layers also read every state changed in a random
direction, and the differences this makes, of z and of y, are equations as well, of less weight: random directions see
the whole of ∂y/∂x, whose transpose carries gradients back.

All other matrices of these layers read z where the base model's read z', which is no longer the same. So each becomes
W₀ M, where M minimises Σ w |M z − z'|² + λ |M − 1|², w = 1 / |z|², by the text alone: one M for all that read the same.

Where the checkpoint will be in 4 bits, z is what the matrix reads when everything before it is in 4 bits already, and a
matrix that was solved for is rounded before the next one is. So each takes over from rounding errors as well. And all
matrices that will be in 4 bits, of all layers, are rounded by GPTQ (arXiv 2210.17323): weights that are rounded later
make up for those before them, by the equations that the matrix was solved for by. Written is what rounding to the
nearest makes that of (worker.quantization.compensated).

Least squares after columns were removed is what ZipLM (arXiv 2302.04089) and OSSCAR (arXiv 2403.12983) choose columns
by; here they are chosen already, and y answers to what went wrong in the layers before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from publisher.checkpoint.masks import Masks
from publisher.weights.writing import Entry
from worker.alignment.reconstructed_layer import Found, Layer, MatrixError, Side, folder_at
from worker.streaming.capture import call_layer
from worker.streaming.casting import cast_once
from worker.streaming.files import TensorFiles
from worker.streaming.hidden import CalibrationStates
from worker.streaming.model import LayerStream
from worker.streaming.shards import ShardWriter

#: how many of how many layers are done; may raise to end the work
Report = Callable[[int, int], None]


def reconstruct(
    base: Path,
    pruned: Path,
    masks: Masks,
    sequences: Tensor,
    output: Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    scratch: Path,
    report: Report,
    four_bit: Collection[str] = (),
) -> list[MatrixError]:
    """Write the model in folder `pruned` to the new folder `output`, reconstructed.

    `sequences` int32 `(samples, tokens)` are the text. One layer of both models is in memory at a time, computing in
    `dtype` on `device`; hidden states that are large lie in the folder `scratch`. Linear layers are solved for, from
    the first decoder layer that lost something to the last, except those of experts. `four_bit` names the pruned
    model's parameters that will be published in 4 bits: then those of all are, and are changed so that rounding them
    costs little. Everything else is copied. Returned are the errors of matrices that write to the residual stream.
    Raises RequestFault where values are not finite.
    """
    output.mkdir(parents=True)
    for path in pruned.glob("*.json"):
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, output / path.name)
    stored = TensorFiles.open(pruned)
    with ShardWriter(output, _entries(stored)) as shards:
        models = [LayerStream(folder, device, dtype) for folder in (base, pruned)]
        work = _Reconstruction(models[0], models[1], masks, stored, scratch, frozenset(four_bit))
        left = set(stored.tensors)
        errors = []
        for name, weight, error in work.run(sequences.long(), report):
            shards.write(name, weight)
            left.remove(name)
            errors.extend([error] if error else [])
        for name in sorted(left, key=stored.place):
            shards.write(name, stored.read([name])[name])
    return errors


def _entries(stored: TensorFiles) -> dict[str, list[Entry]]:
    files: dict[str, list[Entry]] = {}
    for name, tensor in stored.tensors.items():
        files.setdefault(tensor.path.name, []).append(Entry(name, tensor.dtype, tensor.shape))
    return files


@dataclass(frozen=True)
class _Reconstruction:
    """`four_bit`: parameters of the pruned model."""

    base: LayerStream
    pruned: LayerStream
    masks: Masks
    stored: TensorFiles
    scratch: Path
    four_bit: frozenset[str]

    @torch.no_grad()
    def run(self, sequences: Tensor, report: Report) -> Iterator[Found]:
        wanted = CalibrationStates(self.base, sequences, folder_at(self.scratch / "base"))
        found = CalibrationStates(self.pruned, sequences, folder_at(self.scratch / "pruned"))
        cut = max((layer + 1 for layer, _ in self.masks.kept), default=0)
        end = self.pruned.layers if self.four_bit else cut
        same = not self.four_bit  # so far, and so are hidden states
        for index in range(end):
            report(index, end)
            same = same and not any(layer == index for layer, _ in self.masks.kept)
            if same:
                _advance(self.base, index, wanted, also=found)
                continue
            with ExitStack() as stack:
                sides = self._side(stack, self.base, index, wanted), self._side(stack, self.pruned, index, found)
                layer = Layer(index, *sides, partial(self._published, index), self.scratch)
                check = partial(report, index, end)
                writers = self._writers(index)
                readers = self._readers(index, writers)
                four_bit = {path for path in writers | readers if self._is_four_bit(index, f"{path}.weight")}
                yield from layer.solved(writers, readers, four_bit, self.stored, check)
        report(end, end)

    @staticmethod
    def _side(stack: ExitStack, model: LayerStream, index: int, states: CalibrationStates) -> Side:
        layer = stack.enter_context(model.layer(index, ahead=index + 1))
        cast_once(layer, model.dtype)
        return Side(layer, states)

    def _published(self, index: int, path: str, weight: Tensor) -> Tensor:
        if not self._is_four_bit(index, path):
            return weight
        from worker.quantization.packing import round_trip  # imports bitsandbytes

        return round_trip(weight)

    def _writers(self, index: int) -> dict[str, str | None]:
        """Linear modules of the layer that write to the residual stream and can lose columns → the weight's name in
        the files, if it can be put back there."""
        layer, found = self.pruned.skeleton.get_submodule(self.pruned.layer_name(index)), {}
        width = self.pruned.config.get_text_config().hidden_size
        for path, module in layer.named_modules():
            spec = self.masks.spec(index, f"{path}.weight")
            if not isinstance(module, nn.Linear) or spec is None or module.out_features != width:
                continue
            if spec.axis == 1 and spec.parts and spec.expert is None and ".experts." not in path:
                found[path] = self._stored(index, path, tuple(module.weight.shape))
        return found

    def _is_four_bit(self, index: int, parameter: str) -> bool:
        return f"{self.pruned.layer_name(index)}.{parameter}" in self.four_bit

    def _readers(self, index: int, writers: Collection[str]) -> dict[str, str]:
        """Linear modules of the layer besides `writers` → the weight's name in the files; not those of experts, which
        read little of a text each."""
        layer, found = self.pruned.skeleton.get_submodule(self.pruned.layer_name(index)), {}
        for path, module in layer.named_modules():
            if not isinstance(module, nn.Linear) or ".experts." in path or path in writers:
                continue
            name = self._stored(index, path, tuple(module.weight.shape))
            if name is not None:
                found[path] = name
        return found

    def _stored(self, index: int, path: str, shape: tuple[int, ...]) -> str | None:
        """The name of a module's weight in the files, if it is there as it is."""
        names = self.pruned.stored(index, f"{path}.weight")
        return names[0] if len(names) == 1 and self.stored.tensors[names[0]].shape == shape else None


def _advance(stream: LayerStream, index: int, states: CalibrationStates, also: CalibrationStates) -> None:
    with stream.layer(index, ahead=index + 1) as layer:
        for batch, hidden, arguments in states.entering(index):
            after = call_layer(layer, hidden, arguments)
            states.put(batch, after)
            also.put(batch, after)
