"""One layer of both models while it is reconstructed: worker.alignment.reconstruction says how, and why."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from publisher.errors import RequestFault
from worker.numerics.least_squares import LeastSquares
from worker.streaming.capture import Arguments, call_layer
from worker.streaming.files import TensorFiles
from worker.streaming.hidden import CalibrationStates
from worker.streaming.states import StateStore

#: name of a parameter within its layer, the parameter → what it will be in the checkpoint
Published = Callable[[str, Tensor], Tensor]

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


#: name in the files, weight in the type it has there, and the error of one that was solved for
Found = tuple[str, Tensor, MatrixError | None]


@dataclass(frozen=True)
class Side:
    """A layer of one model, and what enters it."""

    layer: nn.Module
    states: CalibrationStates

    def linear(self, path: str) -> nn.Linear:
        module = self.layer.get_submodule(path)
        assert isinstance(module, nn.Linear)
        return module


@dataclass(frozen=True)
class _Targets:
    """What matrices have to put out: in `streams` by module, in the order in which they come; True: the residual stream
    after it, False: its own output in the base model. And the weights of tokens, and what others read there."""

    store: StateStore
    streams: dict[str, bool]

    def weights(self, batch: slice) -> Tensor:
        """`(rows, length)`: 1 / |residual stream|²."""
        return self.store.get(_key("weights", batch))

    def wanted(self, path: str, batch: slice) -> tuple[Tensor, Tensor]:
        """`(rows, length, out)`, and how it differs when the layer reads changed states."""
        return self.store.get(_key(path, batch)), self.store.get(_key(f"{path}-change", batch))

    def read(self, path: str, batch: slice) -> Tensor:
        """`(rows, length, in)`"""
        return self.store.get(_key(f"{path}-read", batch))

    def before(self, path: str) -> list[str]:
        paths = list(self.streams)
        return paths[: paths.index(path)]


@dataclass(frozen=True)
class Layer:
    """One layer of both models; their hidden states before it become those after it."""

    index: int
    base: Side
    pruned: Side
    published: Published
    scratch: Path

    def solved(
        self,
        writers: Mapping[str, str | None],
        readers: Mapping[str, str],
        four_bit: Collection[str],
        stored: TensorFiles,
        check: Callable[[], None],
    ) -> Iterator[Found]:
        """Of `writers` (modules that write to the residual stream) those that have a name in the files, and all
        `readers`, by module: the others. Of modules in `four_bit` what is best rounded to the nearest."""
        solving = {path: name for path, name in writers.items() if name is not None}
        names = solving | dict(readers)
        groups = self._groups(names, readers) if names else []
        later = {f"{path}.weight" for group in groups for path in group}
        for path, parameter in self.pruned.layer.named_parameters():
            if path not in later:
                parameter.copy_(self.published(path, parameter))
        first = [group[0] for group in groups if group[0] in readers and self._reads_alike(group[0])]
        targets = self._ask_base(list(writers) if solving else [], first, check)
        for group in groups:
            error = None
            if group[0] in solving:  # alone in its group
                equations, error = self._solve(group[0], names[group[0]], targets, check)
            else:
                equations = self._translate(group, names[group[0]], targets, check)
            self._make_up([path for path in group if path in four_bit], equations)
            for path in group:
                yield names[path], self._round(path, stored.dtype(names[path])), error
        self._pass(self.pruned, check)
        shutil.rmtree(self._target_folder, ignore_errors=True)

    @property
    def _target_folder(self) -> Path:
        return self.scratch / "targets"

    def _pass(self, side: Side, check: Callable[[], None]) -> None:
        for batch, hidden, arguments in side.states.entering(self.index):
            check()
            side.states.put(batch, call_layer(side.layer, hidden, arguments))

    def _groups(self, paths: Collection[str], readers: Collection[str]) -> list[list[str]]:
        """Those modules that are called, in the order in which they are; `readers` of one input together."""
        groups: list[tuple[Tensor, list[str]]] = []

        def note(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                for read, group in groups:
                    if read is arguments[0] and path in readers and group[0] in readers:
                        group.append(path)
                        return
                groups.append((arguments[0], [path]))

            return hook

        _, hidden, arguments = next(iter(self.pruned.states.entering(self.index)))
        with ExitStack() as stack:
            for path in paths:
                stack.callback(self.pruned.linear(path).register_forward_pre_hook(note(path)).remove)
            call_layer(self.pruned.layer, hidden, arguments)
        return [group for _, group in groups]

    def _make_up(self, paths: Sequence[str], equations: LeastSquares) -> None:
        """Change matrices that read one input so that rounding to the nearest costs least."""
        if not paths:
            return
        from worker.quantization.compensated import compensated  # imports bitsandbytes

        modules = [self.pruned.linear(path) for path in paths]
        found = compensated([module.weight.float() for module in modules], equations.squares())
        for module, weight in zip(modules, found, strict=True):
            module.weight.copy_(weight)

    def _round(self, path: str, dtype: torch.dtype) -> Tensor:
        """The matrix as it is to be stored; layers after it read what that will be when it is published."""
        weight = self.pruned.linear(path).weight
        as_stored = weight.to(dtype, copy=True)
        weight.copy_(self.published(f"{path}.weight", as_stored))
        return as_stored.cpu()

    def _translate(self, paths: Sequence[str], name: str, targets: _Targets, check: Callable[[], None]) -> LeastSquares:
        """Have matrices that read one input do what they do with what the base model's read: W becomes W M, M z nearest
        to that. By the text alone, each token as much as any other: what they read differs little, and equations of
        random changes would have M answer to those. Returns the equations."""
        width = self.pruned.linear(paths[0]).in_features
        equations = LeastSquares(torch.eye(width, device=self.pruned.states.device))
        for batch, hidden, arguments in self.pruned.states.entering(self.index):
            check()
            read, _ = self._read(paths[0], (), hidden, arguments)
            wanted = targets.read(paths[0], batch) if self._reads_alike(paths[0]) else read
            equations.add(read, wanted, _weights(read))
        self._refuse_not_finite(name, equations)
        translation = equations.solution()
        for path in paths:
            module = self.pruned.linear(path)
            module.weight.copy_(module.weight.float() @ translation)
        return equations

    def _reads_alike(self, path: str) -> bool:
        """Nothing is gone of what the module reads."""
        return self.base.linear(path).in_features == self.pruned.linear(path).in_features

    def _ask_base(self, paths: Sequence[str], readers: Sequence[str], check: Callable[[], None]) -> _Targets:
        """What each matrix in `paths` has to put out, and what `readers` read; the base model's states become those
        after the layer.

        Where what the layer adds to the residual stream is the sum of what they put out (no norm behind them, no
        experts beside them), it is the residual stream after each that is kept. And how either differs when the layer
        reads changed states.
        """
        size = self.base.states.nbytes * (2 * (len(paths) + 1) + len(readers))
        targets = _Targets(StateStore(folder_at(self._target_folder), size, self.base.states.device), {})
        for entering in self.base.states.entering(self.index):
            check()
            batch, hidden, arguments = entering
            with _outputs(self.base.layer, paths) as outputs, _inputs(self.base.layer, readers) as read:
                after = call_layer(self.base.layer, hidden, arguments)
            for path, states in read.items():
                targets.store.put(_key(f"{path}-read", batch), states)
            if paths:
                self._keep_outputs(targets, entering, outputs, after)
            self.base.states.put(batch, after)
        return targets

    def _keep_outputs(
        self,
        targets: _Targets,
        entering: tuple[slice, Tensor, Arguments],
        outputs: Mapping[str, Tensor],
        after: Tensor,
    ) -> None:
        """`outputs` of matrices by path, and the states `after` the layer, of what enters it."""
        batch, hidden, arguments = entering
        if not targets.streams:
            is_sum = _is_sum(hidden, list(outputs.values()), after)
            targets.streams.update(dict.fromkeys(outputs, is_sum))
        weights = _weights(after)
        changed = self._changed(hidden, weights, batch)
        with _outputs(self.base.layer, list(outputs)) as outputs_changed:
            call_layer(self.base.layer, changed, arguments)
        is_stream = any(targets.streams.values())
        found, other = _put_out(hidden, outputs, is_stream), _put_out(changed, outputs_changed, is_stream)
        for path, wanted in found.items():
            targets.store.put(_key(path, batch), wanted)
            targets.store.put(_key(f"{path}-change", batch), other[path] - wanted)
        targets.store.put(_key("weights", batch), weights)

    def _changed(self, hidden: Tensor, weights: Tensor, batch: slice) -> Tensor:
        """`hidden` `(rows, length, hidden_size)`, each token's changed in a direction that is the same for both models
        and at every reading. `weights` `(rows, length)`: 1 / |residual stream|²."""
        generator = torch.Generator().manual_seed(self.index << 32 | batch.start)
        directions = torch.randn(hidden.shape, generator=generator).to(hidden.device)
        lengths = _CHANGE * weights.rsqrt() / directions.norm(dim=-1)
        changes: Tensor = directions * lengths[..., None]
        return hidden + changes.to(hidden.dtype)

    def _solve(
        self, path: str, name: str, targets: _Targets, check: Callable[[], None]
    ) -> tuple[LeastSquares, MatrixError]:
        """Put the solution in the module's place; and the equations that it solves."""
        module, before = self.pruned.linear(path), targets.before(path)
        equations = LeastSquares(module.weight)
        for batch, hidden, arguments in self.pruned.states.entering(self.index):
            check()
            weights = targets.weights(batch)
            wanted, change = targets.wanted(path, batch)
            read, stream = self._read(path, before, hidden, arguments)
            changed = self._changed(hidden, weights, batch)
            read_changed, stream_changed = self._read(path, before, changed, arguments)
            if targets.streams[path]:
                wanted, change = wanted - stream, change - (stream_changed - stream)
            if module.bias is not None:
                wanted = wanted - module.bias
            equations.add(read, wanted, weights)
            equations.add(read_changed - read, change, weights * (_OF_CHANGES / _CHANGE**2))
        self._refuse_not_finite(name, equations)
        solution = equations.solution()
        error = MatrixError(name, equations.error(module.weight), equations.error(solution))
        module.weight.copy_(solution)
        return equations, error

    @staticmethod
    def _refuse_not_finite(name: str, equations: LeastSquares) -> None:
        if not equations.is_finite():
            raise RequestFault(
                f"{name} cannot be reconstructed: what it reads is not finite.",
                field="recipe.alignment.reconstruction_tokens",
                way_out="Check that the base model gives finite losses, or set reconstruction_tokens to 0.",
            )

    def _read(self, path: str, before: Sequence[str], hidden: Tensor, arguments: Arguments) -> tuple[Tensor, Tensor]:
        """What a module of the pruned layer reads, and the residual stream with what matrices `before` it put out."""
        with _outputs(self.pruned.layer, before) as outputs, _input(self.pruned.linear(path)) as found, suppress(_Seen):
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
    with _hooked(layer, paths, lambda _read, put_out: put_out) as found:
        yield found


@contextmanager
def _inputs(layer: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What modules of `layer` read within the block, in that order."""
    with _hooked(layer, paths, lambda read, _put_out: read) as found:
        yield found


@contextmanager
def _hooked(
    layer: nn.Module, paths: Sequence[str], which: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    found: dict[str, Tensor] = {}

    def note(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            found[path] = which(arguments[0], output)

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


def _weights(states: Tensor) -> Tensor:
    """`(rows, length)`: 1 / |state|²."""
    return 1 / states.float().square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)


def folder_at(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _key(what: str, batch: slice) -> str:
    return f"{what}-{batch.start}"
