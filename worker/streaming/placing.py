"""Weights from files into the modules of a model, a few at a time, through transformers' own conversion.

Files name tensors otherwise than modules do for some families: experts are one tensor each in files and fused in the
module. transformers knows how to get from the one to the other; this is the only module that calls that machinery
(`transformers.core_model_loading`, whose interface may change with any release; hence the pin to 5.23).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig

from publisher.errors import RequestFault
from worker.models.device import is_gpu, module_of
from worker.streaming.files import TensorFiles


class Placement:
    """Fills parameters of `skeleton`, which are on the meta device, with stored tensors, and empties them again.

    Parameters in `as_stored` keep the type that they are stored in, all others become `dtype`; all go to `device`.
    Raises RequestFault if a parameter has no tensor. Tied parameters need one between them.
    """

    def __init__(
        self,
        skeleton: PreTrainedModel,
        files: TensorFiles,
        device: torch.device,
        dtype: torch.dtype,
        as_stored: Container[str],
    ) -> None:
        self._skeleton, self._files = skeleton, files
        self._device, self._dtype, self._as_stored = device, dtype, as_stored
        self._sources = sources_of(skeleton, files.tensors)
        self._tied = _tied_to(skeleton, self._sources)
        self._refuse_missing()
        self._keep_stored_types()
        self._empty = dict(skeleton.named_parameters(remove_duplicate=False))
        self._gpu = module_of(device)
        self._copies = self._gpu.Stream(device) if is_gpu(device) else None
        _move_buffers(skeleton, device)

    @property
    def parameters(self) -> Collection[str]:
        """Their names in the skeleton."""
        return self._empty.keys()

    @property
    def all_names(self) -> list[str]:
        """Of parameters, and of the buffers that files hold."""
        return [*self._empty, *(name for name in self._sources if name not in self._empty)]

    def stored(self, parameter: str) -> list[str]:
        """The tensors in files that make up a parameter of the skeleton."""
        return self._sources[self._tied.get(parameter, parameter)]

    def fill(self, parameters: Iterable[str]) -> None:
        """Read these parameters or buffers. Raises RequestFault if a tensor does not fit or its file is damaged.

        On a GPU this may run beside the computation, in a thread of its own; see `handed_over`.
        """
        wanted = set(parameters)
        self._convert(sorted({name for each in wanted for name in self.stored(each)}))
        with self._gpu.stream(self._copies):
            for name in wanted - self._tied.keys():
                self._settle(name)
        if self._copies is not None:
            self._copies.synchronize()
        for name in wanted & self._tied.keys():
            module, leaf = _owner(self._skeleton, name)
            module._parameters[leaf] = self._skeleton.get_parameter(self._tied[name])

    def handed_over(self, parameters: Iterable[str]) -> None:
        """What was filled is used on the current stream now: its memory is not free before that is done.

        Whatever was filled needs it: on a GPU memory is the filling stream's, which reuses it at once when it is
        emptied, while what the computation asked for may not have begun.
        """
        if self._copies is not None:
            for name in parameters:
                _held(self._skeleton, name).record_stream(self._gpu.current_stream(self._device))

    def empty(self, parameters: Iterable[str]) -> None:
        """Give their memory back."""
        for name in parameters:
            module, leaf = _owner(self._skeleton, name)
            module._parameters[leaf] = self._empty[name]

    def _convert(self, stored: list[str]) -> None:
        info, _ = convert_and_load_state_dict_in_model(
            model=self._skeleton,
            state_dict=self._files.read(stored),
            load_config=LoadStateDictConfig(weight_mapping=get_model_conversion_mapping(self._skeleton)),
            disk_offload_index=None,
        )
        for name, found, wanted in sorted(info.mismatched_keys):
            raise self._fault(name, f"has shape {tuple(found)} where the config makes it {tuple(wanted)}")
        for name, error in sorted(info.conversion_errors.items()):
            raise self._fault(name, f"cannot be put together ({error})")

    def _settle(self, name: str) -> None:
        """On the device, in the type that it is computed with."""
        module, leaf = _owner(self._skeleton, name)
        if leaf in module._buffers:
            module._buffers[leaf] = getattr(module, leaf).to(self._device)
            return
        value = module._parameters[leaf]
        assert value is not None
        dtype = value.dtype if name in self._as_stored else self._dtype
        data = value.detach()
        if self._copies is not None:
            data = data.pin_memory()
        data = data.to(self._device, dtype, non_blocking=True)
        module._parameters[leaf] = nn.Parameter(data, requires_grad=False)

    def _refuse_missing(self) -> None:
        for name, _ in self._skeleton.named_parameters(remove_duplicate=False):
            if name not in self._sources and name not in self._tied:
                raise RequestFault(
                    f"the base model's files hold no tensor for {name}, which its config asks for.",
                    way_out="Save the base model again, with the config that it was trained with.",
                )

    def _keep_stored_types(self) -> None:
        """transformers casts what it loads to the type of the parameter that is there: make that the stored one."""
        for name, names in self._sources.items():
            module, leaf = _owner(self._skeleton, name)
            empty = module._parameters.get(leaf)
            if empty is not None:
                stored = torch.empty(empty.shape, dtype=self._files.dtype(names[0]), device="meta")
                module._parameters[leaf] = nn.Parameter(stored, requires_grad=False)

    def _fault(self, parameter: str, what: str) -> RequestFault:
        stored = self._sources[parameter][0]
        return RequestFault(
            f"tensor {stored} in {self._files.tensors[stored].path.name} {what}.",
            way_out="Save the base model again, with the config that it was trained with.",
        )


def _move_buffers(skeleton: nn.Module, device: torch.device) -> None:
    for name, buffer in list(skeleton.named_buffers()):
        module, leaf = _owner(skeleton, name)
        module._buffers[leaf] = buffer.to(device)


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _held(module: nn.Module, name: str) -> torch.Tensor:
    """A parameter or buffer."""
    owner, leaf = _owner(module, name)
    tensor: torch.Tensor = getattr(owner, leaf)
    return tensor


def _tied_to(skeleton: PreTrainedModel, sources: Container[str]) -> dict[str, str]:
    """Parameter without a tensor → the one that has it; as transformers does, whichever of the two is stored."""
    pairs = (getattr(skeleton, "all_tied_weights_keys", None) or {}).items()
    both_ways = [*pairs, *((source, target) for target, source in pairs)]
    return {name: other for name, other in both_ways if name not in sources and other in sources}


def sources_of(skeleton: PreTrainedModel, stored: Iterable[str]) -> dict[str, list[str]]:
    """Parameter or buffer → the stored tensors that it is made of; stored tensors that have no use are left out."""
    mapping = get_model_conversion_mapping(skeleton)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    targets = {pattern: entry.target_patterns for entry in converters for pattern in entry.source_patterns}
    state = skeleton.state_dict()
    sources: dict[str, list[str]] = {}
    for name in stored:
        renamed, pattern = rename_source_key(name, renamings, converters, skeleton.base_model_prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = name, None
        made = [renamed] if pattern is None else [renamed.replace(targets[pattern][0], to) for to in targets[pattern]]
        for target in made:
            if target in state:
                sources.setdefault(target, []).append(name)
    return sources
