"""What a trained adapter makes of the checkpoint's own matrices: by PEFT's own code, one module in memory at a time.

For methods whose factors have no rows and columns of their own (Kronecker products, spectra, rotations), and for those
whose update depends on the weight that it is trained on. Each module of the checkpoint is made with its weight,
dequantized from 4 bits, gets its adapter as PEFT makes and loads it, and is merged: what that changed is the
**realised change**, which recovery puts back at the kept rows and columns like any other update.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel, PeftType, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from publisher.checkpoint.compression import expand
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.changes import ModuleChange, Target, Together
from publisher.checkpoint.recovery.naming import PEFT_PREFIX
from publisher.checkpoint.recovery.places import NOT_FITTING, AdapterPlaces
from publisher.checkpoint.recovery.whole_parameters import WholeParameters
from publisher.errors import PublisherError, RequestFault

_WAY_OUT = "Save the adapter with model.save_pretrained, and recover it with the checkpoint it was trained on."
#: of a config: what is not of the update, or of the whole model
_OF_THE_MODEL: Mapping[str, Any] = {
    "task_type": None, "modules_to_save": None, "auto_mapping": None, "base_model_name_or_path": None, "revision": None,
    "trainable_token_indices": None, "inference_mode": True, "progressbar": False, "megatron_config": None,
}  # fmt: skip


class RealisedChanges:
    """Of the adapter's modules. Raises RequestFault naming a tensor that PEFT would not load, or one that is missing.

    `together`: of the method. With weights together, all matrices that the adapter adapts are in memory.
    """

    def __init__(self, adapter: Adapter, masks: PruningMasks, together: Together) -> None:
        self._adapter, self._masks, self._together = adapter, masks, together
        self._whole, self._places = _known(adapter)
        self._last: tuple[str, ModuleChange] | None = None
        self._refuse_options()

    @property
    def targets(self) -> Mapping[str, Target]:
        return self._places.targets

    def of(self, module: str) -> ModuleChange:
        """Times the adapter's strength. The last one asked for is kept: a weight and its bias are written in turn."""
        if self._last is None or self._last[0] != module:
            self._last = (module, self._computed(module))
        return self._last[1]

    def _computed(self, module: str) -> ModuleChange:
        weight, bias = self._weight(module), self._bias(module)
        alone = self._together is Together.ALONE
        model = self._alone(module, weight, bias) if alone else self._shared
        layer = model.get_submodule(f"{PEFT_PREFIX}{module}")
        assert isinstance(layer, BaseTunerLayer), module
        base = layer.get_base_layer()
        stand_in = base.weight.data
        base.weight.data = (stand_in if alone else weight).to(torch.float64, copy=True)
        if bias is not None:
            base.bias.data = bias.to(torch.float64, copy=True)
        _merge(module, layer)
        change = _difference(base, weight, bias, self._adapter.strength)
        if not alone:  # what was merged gives its memory back
            base.weight.data, layer.merged_adapters = stand_in, []
        _refuse_not_finite(module, change)
        return change

    def _alone(self, module: str, weight: Tensor, bias: Tensor | None) -> PeftModel:
        """On copies, of fp32 or better: what an initialisation takes from a weight is not rounded to 16 bits."""
        return self._adapted({module: _linear(_exact(weight), None if bias is None else _exact(bias))})

    @cached_property
    def _shared(self) -> PeftModel:
        if self._together is Together.WEIGHTS:
            return self._adapted({module: _linear(self._weight(module), self._bias(module)) for module in self.targets})
        first = next(iter(self.targets))
        # PEFT casts what it draws for a module to the dtype of its weight, but not beside one in 4 bits
        packed = self._whole.origins.checkpoint.is_packed(f"{first}.weight")
        dtype = torch.float32 if packed else self._weight(first).dtype
        return self._adapted({module: _stand_in(target, dtype) for module, target in self.targets.items()})

    def _bias(self, module: str) -> Tensor | None:
        return self._read(f"{module}.bias") if self.targets[module].biased else None

    def _weight(self, module: str) -> Tensor:
        name, shape = f"{module}.weight", self.targets[module].shape
        weight = self._read(name)
        mask = self._masks.mask_of(name)
        if mask is not None and weight.ndim == 1:  # stored compressed
            weight = expand(weight, mask)
        if tuple(weight.shape) != shape:
            raise RequestFault(
                f"{name} of the checkpoint has shape {tuple(weight.shape)}, its config.json says {shape}."
            )
        return weight

    def _read(self, name: str) -> Tensor:
        weights = self._whole.origins.checkpoint
        try:
            return weights.read(name)
        except PublisherError as error:
            raise RequestFault(
                f"What the adapter does depends on the checkpoint's {name}, which cannot be had: {error.message}",
                way_out="Name a folder that holds the whole checkpoint with --checkpoint.",
            ) from error

    def _adapted(self, modules: Mapping[str, nn.Linear]) -> PeftModel:
        """PEFT's model of these modules alone, with what the adapter has for them, all of it in fp64."""
        peft_config = _peft_config(self._adapter.config)
        saved = {name: _computable(self._adapter.tensors.read(name)) for name in self._names_of(modules)}
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            try:
                model = PeftModel(_tree(modules), peft_config)
                _refuse_others(get_peft_model_state_dict(model, save_embedding_layers=False), saved)
                set_peft_model_state_dict(model, saved)
            except NOT_FITTING as error:
                raise RequestFault(
                    f"The adapter does not fit {next(iter(modules))} of the checkpoint: {str(error).strip()[:300]}",
                    way_out=_WAY_OUT,
                ) from error
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if ".base_layer." not in name and tensor.is_floating_point():
                tensor.data = tensor.data.double()
        return model.eval()

    def _names_of(self, modules: Iterable[str]) -> list[str]:
        """Of the adapter's parts those of `modules`, and those that are of no module."""
        mine = tuple(f"{PEFT_PREFIX}{module}." for module in modules)
        others = tuple(f"{PEFT_PREFIX}{module}." for module in self.targets if f"{PEFT_PREFIX}{module}." not in mine)
        return [name for name in self._adapter.tensors.updates if name.startswith(mine) or not name.startswith(others)]

    def _refuse_options(self) -> None:
        config = self._adapter.config
        if not self.targets:
            raise RequestFault("The adapter adapts no linear layer, of which alone there is a realised change.")
        for option in ("target_parameters", "fan_in_fan_out", "layer_replication"):
            if config.get(option):
                raise RequestFault(
                    f"The adapter was trained with {option}, of which there is no realised change.",
                    way_out="Train linear layers (target_modules).",
                )
        if config.get("bias", "none") not in (None, False, "none"):
            raise RequestFault(
                f"The adapter was trained with bias={config['bias']!r}: biases that pruning shortened.",
                way_out='Train with bias="none".',
            )


def _known(adapter: Adapter) -> tuple[WholeParameters, AdapterPlaces]:
    if adapter.whole is None or adapter.places is None:
        raise RequestFault(
            "What this adapter does depends on the checkpoint's weights, which are not known here.",
            way_out="Save the adapter, and recover its folder with the checkpoint's.",
        )
    return adapter.whole, adapter.places


def _peft_config(config: Mapping[str, Any]) -> Any:
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(str(config["peft_type"]).removeprefix("PeftType."))]
    known = {each.name for each in fields(config_class) if each.init}
    values = {**config, **_OF_THE_MODEL}
    return config_class(**{key: value for key, value in values.items() if key in known and key != "peft_type"})


def _computable(tensor: Tensor) -> Tensor:
    """torch computes with no floats of 8 bits."""
    return tensor.float() if tensor.itemsize == 1 and tensor.is_floating_point() else tensor


def _exact(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def _stand_in(target: Target, dtype: torch.dtype) -> nn.Linear:
    """A module whose weight takes no memory: one number, for every place."""
    bias = torch.zeros(target.shape[0], dtype=dtype) if target.biased else None
    return _linear(torch.zeros((), dtype=dtype).expand(target.shape), bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    with torch.device("meta"):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight, requires_grad=False)  # no copy
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


def _tree(modules: Mapping[str, nn.Linear]) -> nn.Module:
    """A module that holds `modules` under their dotted names and nothing else."""
    root = nn.Module()
    for name, module in modules.items():
        *path, last = name.split(".")
        parent = root
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, module)
    return root


def _refuse_others(wanted: Iterable[str], saved: Mapping[str, Tensor]) -> None:
    """What PEFT would leave out in silence, or start from random numbers."""
    wanted = set(wanted)
    for name in sorted(saved.keys() - wanted):
        raise RequestFault(f"{name} has no place in the model: PEFT would leave it out in silence.", way_out=_WAY_OUT)
    for name in sorted(wanted - saved.keys()):
        raise RequestFault(f"The adapter has no {name}, which its adapter_config.json promises.", way_out=_WAY_OUT)


def _merge(module: str, layer: Any) -> None:
    try:
        with torch.no_grad():
            layer.merge()
    except NOT_FITTING as error:
        raise RequestFault(f"PEFT cannot merge the adapter of {module}: {str(error).strip()[:300]}") from error


def _difference(merged: nn.Linear, weight: Tensor, bias: Tensor | None, strength: float) -> ModuleChange:
    change = merged.weight.data.sub_(weight).mul_(strength)
    return ModuleChange(change, None if bias is None else (merged.bias.data - bias) * strength)


def _refuse_not_finite(module: str, change: ModuleChange) -> None:
    for part in (change.weight, change.bias):
        if part is not None and not torch.isfinite(part).all():
            raise RequestFault(f"What the adapter does to {module} is no finite number.")
