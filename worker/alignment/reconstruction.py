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

Where the checkpoint will be in 4 bits, z is what the matrix reads when everything before it is in 4 bits already, and a
matrix that was solved for is rounded before the next one is. So each takes over from rounding errors as well, which
costs nothing (rounding layer by layer and going on from what it left: GPTQ, arXiv 2210.17323, section 3). Written are
the weights before rounding.

Least squares after columns were removed is what ZipLM (arXiv 2302.04089) and OSSCAR (arXiv 2403.12983) choose columns
by; here they are chosen already, and y answers to what went wrong in the layers before.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from publisher.checkpoint.masks import Masks
from publisher.checkpoint.streaming import Entry
from publisher.errors import RequestFault
from worker.alignment.least_squares import LeastSquares
from worker.stages.shards import ShardWriter
from worker.streaming.capture import Arguments, call_layer
from worker.streaming.casting import cast_once
from worker.streaming.files import TensorFiles
from worker.streaming.hidden import CalibrationStates
from worker.streaming.model import LayerStream
from worker.streaming.states import StateStore

#: how many of how many layers are done; may raise to end the work
Report = Callable[[int, int], None]
#: name of a parameter within its layer, the parameter → what it will be in the checkpoint
_Published = Callable[[str, Tensor], Tensor]

#: length of the random change of a state, relative to the residual stream's
_CHANGE = 0.1
#: weight of the equations that differences make, were changes as long as the states themselves: ρ²
_OF_CHANGES = 0.3**2
#: what of a layer's update may be left unexplained by the outputs of the matrices, for those to be its parts
_UNEXPLAINED = 0.05


class MatrixError(NamedTuple):
    """Σ w |W z − y|² / Σ w |y|² of a matrix, by its name in the files, as it was pruned and as it was solved for.

    Over tokens and, with their weight, over the differences that changes of them make.
    """

    name: str
    before: float
    after: float


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
    """Write the model in folder `pruned` to the new folder `output`, reconstructed; returns each matrix's error.

    `sequences` int32 `(samples, tokens)` are the text. One layer of both models is in memory at a time, computing in
    `dtype` on `device`; hidden states that are large lie in the folder `scratch`. Matrices that lost columns are
    solved for, except those of experts; everything else is copied. `four_bit` names the pruned model's parameters that
    will be published in 4 bits. Raises RequestFault where values are not finite.
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
            errors.append(error)
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
    def run(self, sequences: Tensor, report: Report) -> Iterator[tuple[str, Tensor, MatrixError]]:
        """Name in the files, weight in the type it has there, and error of each matrix."""
        wanted = CalibrationStates(self.base, sequences, _folder(self.scratch / "base"))
        found = CalibrationStates(self.pruned, sequences, _folder(self.scratch / "pruned"))
        last = max((layer for layer, _ in self.masks.kept), default=-1)
        same = not self.four_bit  # so far, and so are hidden states
        for index in range(last + 1):
            report(index, last + 1)
            same = same and not any(layer == index for layer, _ in self.masks.kept)
            if same:
                _advance(self.base, index, wanted, also=found)
                continue
            with self.base.layer(index, ahead=index + 1) as of_base, self.pruned.layer(index, index + 1) as of_pruned:
                cast_once(of_base, self.base.dtype)
                cast_once(of_pruned, self.pruned.dtype)
                sides, published = (_Side(of_base, wanted), _Side(of_pruned, found)), partial(self._published, index)
                layer = _Layer(index, *sides, published, self.scratch)
                check = partial(report, index, last + 1)
                yield from layer.solved(self._matrices(index), self.stored, check)
        report(last + 1, last + 1)

    def _published(self, index: int, path: str, weight: Tensor) -> Tensor:
        if f"{self.pruned.layer_name(index)}.{path}" not in self.four_bit:
            return weight
        from worker.quantization.packing import round_trip  # imports bitsandbytes

        return round_trip(weight)

    def _matrices(self, index: int) -> dict[str, str | None]:
        """Linear modules of the layer that write to the residual stream and can lose columns → the weight's name in
        the files if it did, and can be put back there."""
        layer, found = self.pruned.skeleton.get_submodule(self.pruned.layer_name(index)), {}
        width = self.pruned.config.get_text_config().hidden_size
        for path, module in layer.named_modules():
            spec = self.masks.spec(index, f"{path}.weight")
            if not isinstance(module, nn.Linear) or spec is None or module.out_features != width:
                continue
            if spec.axis == 1 and spec.parts and spec.expert is None and ".experts." not in path:
                found[path] = self._solvable(index, path, tuple(module.weight.shape))
        return found

    def _solvable(self, index: int, path: str, shape: tuple[int, ...]) -> str | None:
        names = self.pruned.stored(index, f"{path}.weight")
        as_it_is = len(names) == 1 and self.stored.tensors[names[0]].shape == shape
        return names[0] if as_it_is and self.masks.columns(index, path) is not None else None


class _Target(NamedTuple):
    """What a matrix has to put out: the residual stream after it, or its own output in the base model."""

    path: str
    is_stream: bool


@dataclass(frozen=True)
class _Side:
    """A layer of one model, and what enters it."""

    layer: nn.Module
    states: CalibrationStates

    def linear(self, path: str) -> nn.Linear:
        module = self.layer.get_submodule(path)
        assert isinstance(module, nn.Linear)
        return module


@dataclass(frozen=True)
class _Layer:
    """One layer of both models; their hidden states before it become those after it."""

    index: int
    base: _Side
    pruned: _Side
    published: _Published
    scratch: Path

    def solved(
        self, matrices: Mapping[str, str | None], stored: TensorFiles, check: Callable[[], None]
    ) -> Iterator[tuple[str, Tensor, MatrixError]]:
        """Of `matrices` (modules that write to the residual stream) those that have a name."""
        solving = {f"{path}.weight" for path, name in matrices.items() if name is not None}
        for path, parameter in self.pruned.layer.named_parameters():
            if path not in solving:
                parameter.copy_(self.published(path, parameter))
        if solving:
            yield from self._solved(matrices, stored, check)
        else:
            self._pass(self.base, check)
        self._pass(self.pruned, check)

    def _pass(self, side: _Side, check: Callable[[], None]) -> None:
        for batch, hidden, arguments in side.states.entering(self.index):
            check()
            side.states.put(batch, call_layer(side.layer, hidden, arguments))

    def _solved(
        self, matrices: Mapping[str, str | None], stored: TensorFiles, check: Callable[[], None]
    ) -> Iterator[tuple[str, Tensor, MatrixError]]:
        size = self.base.states.nbytes * 2 * (len(matrices) + 1)
        targets = StateStore(_folder(self.scratch / "targets"), size, self.base.states.device)
        order = self._ask_base(list(matrices), targets, check)
        for place, target in enumerate(order):
            name = matrices[target.path]
            if name is None:
                continue
            error = self._solve(name, target, [earlier.path for earlier in order[:place]], targets, check)
            weight = self.pruned.linear(target.path).weight
            as_stored = weight.to(stored.dtype(name), copy=True)
            weight.copy_(self.published(f"{target.path}.weight", as_stored))
            yield name, as_stored.cpu(), error
        shutil.rmtree(self.scratch / "targets")

    def _ask_base(self, paths: Sequence[str], targets: StateStore, check: Callable[[], None]) -> list[_Target]:
        """Keep what each matrix puts out, in the order in which they come; and the weights of tokens, as "weights".

        Where what the layer adds to the residual stream is the sum of what they put out (no norm behind them, no
        experts beside them), it is the residual stream after each that is kept. And how either differs when the layer
        reads changed states.
        """
        order: list[_Target] = []
        for batch, hidden, arguments in self.base.states.entering(self.index):
            check()
            with _outputs(self.base.layer, paths) as outputs:
                after = call_layer(self.base.layer, hidden, arguments)
            if not order:
                is_sum = _is_sum(hidden, list(outputs.values()), after)
                order = [_Target(path, is_sum) for path in outputs]
            squares = after.float().square().sum(-1)
            weights = 1 / squares.clamp_min(torch.finfo(torch.float32).tiny)
            changed = self._changed(hidden, weights, batch)
            with _outputs(self.base.layer, paths) as outputs_changed:
                call_layer(self.base.layer, changed, arguments)
            is_stream = bool(order) and order[0].is_stream
            found, other = _put_out(hidden, outputs, is_stream), _put_out(changed, outputs_changed, is_stream)
            for path, wanted in found.items():
                targets.put(_key(path, batch), wanted)
                targets.put(_key(f"{path}-change", batch), other[path] - wanted)
            targets.put(_key("weights", batch), weights)
            self.base.states.put(batch, after)
        return order

    def _changed(self, hidden: Tensor, weights: Tensor, batch: slice) -> Tensor:
        """`hidden` `(rows, length, hidden_size)`, each token's changed in a direction that is the same for both models
        and at every reading. `weights` `(rows, length)`: 1 / |residual stream|²."""
        generator = torch.Generator().manual_seed(self.index << 32 | batch.start)
        directions = torch.randn(hidden.shape, generator=generator).to(hidden.device)
        lengths = _CHANGE * weights.rsqrt() / directions.norm(dim=-1)
        changes: Tensor = directions * lengths[..., None]
        return hidden + changes.to(hidden.dtype)

    def _solve(
        self,
        name: str,
        target: _Target,
        before: Sequence[str],
        targets: StateStore,
        check: Callable[[], None],
    ) -> MatrixError:
        """Put the solution in the module's place; `before`: matrices that come earlier in the layer."""
        module = self.pruned.linear(target.path)
        squares = LeastSquares(module.weight)
        for batch, hidden, arguments in self.pruned.states.entering(self.index):
            check()
            weights = targets.get(_key("weights", batch))
            wanted = targets.get(_key(target.path, batch))
            change = targets.get(_key(f"{target.path}-change", batch))
            read, stream = self._read(module, before, hidden, arguments)
            changed = self._changed(hidden, weights, batch)
            read_changed, stream_changed = self._read(module, before, changed, arguments)
            if target.is_stream:
                wanted, change = wanted - stream, change - (stream_changed - stream)
            if module.bias is not None:
                wanted = wanted - module.bias
            squares.add(read, wanted, weights)
            squares.add(read_changed - read, change, weights * (_OF_CHANGES / _CHANGE**2))
        if not squares.is_finite():
            raise RequestFault(
                f"{name} cannot be reconstructed: what it reads is not finite.",
                field="recipe.alignment.reconstruction_tokens",
                way_out="Check that the base model gives finite losses, or set reconstruction_tokens to 0.",
            )
        solution = squares.solution()
        error = MatrixError(name, squares.error(module.weight), squares.error(solution))
        module.weight.copy_(solution)
        return error

    def _read(
        self, module: nn.Linear, before: Sequence[str], hidden: Tensor, arguments: Arguments
    ) -> tuple[Tensor, Tensor]:
        """What `module` of the pruned layer reads, and the residual stream with what matrices `before` it put out."""
        with _outputs(self.pruned.layer, before) as outputs, _input(module) as found, suppress(_Seen):
            call_layer(self.pruned.layer, hidden, arguments)
        stream: Tensor = sum(outputs.values(), hidden)
        return found[0], stream


class _Seen(Exception):
    """The rest of a layer's forward would be for nothing."""


@contextmanager
def _input(module: nn.Module) -> Iterator[list[Tensor]]:
    """What `module` reads, within the block; its forward is ended there."""
    found: list[Tensor] = []

    def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        found.append(arguments[0])
        raise _Seen

    handle = module.register_forward_pre_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def _outputs(layer: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What modules of `layer` put out within the block, in that order."""
    found: dict[str, Tensor] = {}

    def note(path: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
            found[path] = output

        return hook

    with ExitStack() as stack:
        for path in paths:
            stack.callback(layer.get_submodule(path).register_forward_hook(note(path)).remove)
        yield found


def _put_out(hidden: Tensor, outputs: Mapping[str, Tensor], is_stream: bool) -> dict[str, Tensor]:
    """The residual stream after each of the matrices, or what each puts out."""
    found, stream = {}, hidden
    for path, output in outputs.items():
        stream = stream + output
        found[path] = stream if is_stream else output
    return found


def _is_sum(before: Tensor, outputs: Sequence[Tensor], after: Tensor) -> bool:
    added = (after - before).float()
    left = added.clone()
    for output in outputs:
        left -= output
    return bool(left.norm() <= _UNEXPLAINED * added.norm())


def _advance(stream: LayerStream, index: int, states: CalibrationStates, also: CalibrationStates) -> None:
    with stream.layer(index, ahead=index + 1) as layer:
        for batch, hidden, arguments in states.entering(index):
            after = call_layer(layer, hidden, arguments)
            states.put(batch, after)
            also.put(batch, after)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _key(what: str, batch: slice) -> str:
    return f"{what}-{batch.start}"
