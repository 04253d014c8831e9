"""What the matrices of a layer are multiplied with, whatever the family's modelling code looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from worker.streaming.model import LayerStream

#: (parameter's name in the layer, number of the expert where it holds several, inputs (…, in))
Seen = Callable[[str, int | None, Tensor], None]


@contextmanager
def watched_inputs(stream: LayerStream, layer: nn.Module, seen: Seen) -> Iterator[None]:
    """Within, `seen` hears of each product of a matrix of `layer` when its forward makes it.

    Linear layers tell by a hook. Routers and fused experts multiply parameters of their own: those products are
    recognised by where in memory the weight lies, experts one after another (transformers' "eager" way to run them).
    """
    with ExitStack() as stack:
        loose: dict[str, nn.Parameter] = {}
        for path, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                handle = module.register_forward_pre_hook(_telling(f"{path}.weight", seen))
                stack.callback(handle.remove)
            else:
                own = module.named_parameters(recurse=False)
                loose |= {f"{path}.{leaf}": value for leaf, value in own if value.dim() in (2, 3)}
        if loose:
            stack.enter_context(_experts_one_by_one(stream))
            stack.enter_context(_LooseProducts(loose, seen))
        yield


def _telling(name: str, seen: Seen) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen(name, None, arguments[0])

    return hook


@contextmanager
def _experts_one_by_one(stream: LayerStream) -> Iterator[None]:
    before = stream.skeleton.get_experts_implementation()
    stream.skeleton.set_experts_implementation("eager")
    try:
        yield
    finally:
        stream.skeleton.set_experts_implementation(before)


class _LooseProducts(TorchFunctionMode):
    """Hears of functional.linear with one of these parameters, or a matrix out of one with three axes."""

    def __init__(self, parameters: dict[str, nn.Parameter], seen: Seen) -> None:
        super().__init__()
        self._seen = seen
        self._parameters = parameters

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and len(args) > 1:
            self._tell(args[0], args[1])
        return func(*args, **(kwargs or {}))

    def _tell(self, x: Tensor, weight: Tensor) -> None:
        for name, parameter in self._parameters.items():
            offset = weight.data_ptr() - parameter.data_ptr()
            if not 0 <= offset < parameter.nbytes or weight.shape != parameter.shape[-2:]:
                continue
            expert = offset // (parameter.stride(0) * parameter.element_size()) if parameter.dim() == 3 else None
            self._seen(name, expert, x)
            return
