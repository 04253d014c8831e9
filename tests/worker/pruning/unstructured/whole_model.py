"""The oracle of the sequential pass: the same model loaded whole, pruned layer by layer from its own full forwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from worker.pruning.unstructured.criteria import Pruned

#: (weight, everything that the matrix read (tokens, in)) → pruned
Prune = Callable[[Tensor, Tensor], Pruned]


@torch.no_grad()
def prune_whole_model(folder: Path, sequences: Tensor, layers: range, prune: Prune) -> dict[str, Pruned]:
    """By the names of modules (`….q_proj.weight`), and of experts (`….experts.0.gate_proj.weight`)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval()
    done: dict[str, Pruned] = {}
    for index in layers:
        layer = model.model.layers[index]
        left = list(_inputs_of(model, layer, sequences))
        while left:
            inputs = _inputs_of(model, layer, sequences)  # again, now that what comes before is pruned
            parents = {path.rpartition(".")[0] for path in left}
            experts = [path for path in left if ".experts." in path] if ".experts." in left[0] else []
            together = left if len(parents) == 1 else experts or left[:1]
            for path in together:
                weight = _weight(layer, path)
                pruned = prune(weight, inputs[path])
                weight.copy_(pruned.weight)
                done[f"model.layers.{index}.{path}.weight"] = pruned
            left = [path for path in left if path not in together]
    return done


def _inputs_of(model: PreTrainedModel, layer: nn.Module, sequences: Tensor) -> dict[str, Tensor]:
    """Path within the layer → everything it reads; one sequence at a time through the whole model."""
    read: dict[str, list[Tensor]] = {}
    hooks = []
    for path, module in layer.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_pre_hook(_note(read, path)))
        elif hasattr(module, "gate_up_proj") and isinstance(module.gate_up_proj, nn.Parameter):
            hooks.append(module.register_forward_pre_hook(_note_experts(read, path)))
    for sequence in sequences:
        model(sequence[None])
    for hook in hooks:
        hook.remove()
    return {path: torch.cat(parts) for path, parts in read.items()}


def _note(read: dict[str, list[Tensor]], path: str) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        read.setdefault(path, []).append(arguments[0].flatten(0, -2))

    return hook


def _note_experts(read: dict[str, list[Tensor]], path: str) -> Callable[..., None]:
    """From the router's choice: the tokens that each expert gets, and what its down projection makes of them."""

    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        hidden, chosen = arguments[0], arguments[1]
        act = module.get_submodule("act_fn")
        for expert, weight in enumerate(module.get_parameter("gate_up_proj")):
            tokens = hidden[(chosen == expert).any(dim=1)]
            gate, up = functional.linear(tokens, weight).chunk(2, dim=-1)
            for name, inputs in {"gate_proj": tokens, "up_proj": tokens, "down_proj": act(gate) * up}.items():
                read.setdefault(f"{path}.{expert}.{name}", []).append(inputs)

    return hook


def _weight(layer: nn.Module, path: str) -> Tensor:
    if ".experts." not in path:
        return layer.get_parameter(f"{path}.weight")
    experts, expert, name = path.rsplit(".", 2)
    module = layer.get_submodule(experts)
    if name == "down_proj":
        return module.get_parameter("down_proj")[int(expert)]
    return module.get_parameter("gate_up_proj")[int(expert)].chunk(2, dim=0)[name == "up_proj"]
