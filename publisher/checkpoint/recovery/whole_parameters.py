"""Parameters that an adapter holds whole: modules_to_save, embeddings, trained tokens, norms, biases.

What PEFT saves of them is the checkpoint's own value plus what training did to it. Alignment is in the first and is not
for the base model, so what is recovered is the difference from the checkpoint's value, added to the base model's:
one that was not trained becomes the base model's own, bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from publisher.checkpoint.model_weights import ModelWeights
from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.naming import TOKENS, Naming
from publisher.checkpoint.recovery.places import AdapterPlaces
from publisher.checkpoint.recovery.tensors import refuse_not_finite
from publisher.errors import PublisherError, RequestFault

#: dtypes that a checkpoint may have been loaded in for training, whatever its files hold
_LOADED_IN = (torch.bfloat16, torch.float16)


def refuse_cut(name: str, masks: PruningMasks, title: str) -> None:
    """RequestFault for one that pruning shortened: a trained copy of a parameter replaces the base model's, whose
    removed rows nobody here knows. `title`: of the adapter's method."""
    if masks.layer_of(name) is None:
        return
    found = masks.parameter(name.replace(".base_layer.", "."))
    if found is None:
        raise RequestFault(f"{name} is not part of a plain {title} and cannot be recovered.")
    if found.cut is not None:
        raise RequestFault(
            f"{name} is a whole parameter of a pruned projection (modules_to_save or bias), not an update: the rows "
            "that pruning removed would be lost from the base model.",
            way_out=f'Train this projection through {title} alone, with bias="none".',
        )


def trained_difference(saved: Tensor, own: Tensor) -> Tensor:
    """What training did to `own`, of the checkpoint, so that it was saved as `saved`: same shape, fp32 or better.

    Zero where `saved` is what loading makes of `own`, in whatever dtype.
    """
    exact = torch.promote_types(torch.promote_types(saved.dtype, own.dtype), torch.float32)
    unchanged = saved == own.to(saved.dtype)
    for dtype in _LOADED_IN:
        unchanged |= saved == own.to(dtype).to(saved.dtype)
    return (saved.to(exact) - own.to(exact)).masked_fill_(unchanged, 0)


def carried_over(saved: Tensor, own: Tensor, base: Tensor) -> Tensor:
    """`base` plus what training did to `own`, in a dtype that holds both the adapter's values and the base model's.

    Rows of `saved` that the base model does not have (of new tokens) are the adapter's own, and stay as they are.
    """
    rows = min(len(saved), len(own), len(base))
    change = trained_difference(saved[:rows], own[:rows])
    exact = torch.promote_types(change.dtype, base.dtype)
    shared = base[:rows].to(exact) + change.to(exact)
    dtype = torch.promote_types(saved.dtype, base.dtype)
    return torch.cat([shared.to(dtype), saved[rows:].to(dtype)])


@dataclass(frozen=True)
class Origins:
    """The values that whole parameters had before training, in the checkpoint and in the base model.

    `equal`: the checkpoint was made without training its weights or storing them in fewer bits, so that what pruning
    left whole is the base model's; then nothing is fetched for it. `same`: the adapter is one for the base model, whose
    whole parameters it holds as they are to be.
    """

    checkpoint: ModelWeights
    base: ModelWeights
    equal: bool = False
    same: bool = False


@dataclass(frozen=True)
class WholeParameters:
    """Those of the adapter that `config` (adapter_config.json) describes; `places` are its on the model."""

    origins: Origins
    config: Mapping[str, Any]
    places: AdapterPlaces

    def recovered(self, name: str, saved: Tensor) -> Tensor:
        """The adapter's whole tensor `name` for the base model.

        Raises RequestFault for NaN and infinity, and with the way out if what it was before training is not at hand.
        """
        saved = saved.float() if saved.itemsize == 1 else saved  # torch adds no floats of 8 bits
        refuse_not_finite(name, saved)
        recovered = self._recovered(name, saved)
        refuse_overflow(name, recovered)
        return recovered

    def _recovered(self, name: str, saved: Tensor) -> Tensor:
        if self.places.naming.module_of(name) in self.places.classifiers:  # nobody else has it
            return saved
        origins = self.origins
        if origins.same or (origins.equal and not (origins.checkpoint.here and origins.base.here)):
            return saved
        own, base = (self._read(weights, name) for weights in (origins.checkpoint, origins.base))
        if name.endswith(TOKENS):
            return _tokens_carried_over(saved, own, base, token_indices(name, self.config, self.places.naming))
        for weights, value in ((origins.checkpoint, own), (origins.base, base)):
            self._refuse_other_shape(name, saved, value, weights)
        return carried_over(saved, own, base)

    def _read(self, weights: ModelWeights, name: str) -> Tensor:
        tied = self.places.input_embeddings if self.places.naming.module_of(name) in self.places.embeddings else None
        try:
            return weights.read(self.places.naming.parameter_of(name), tied and f"{tied}.weight")
        except PublisherError as error:
            raise RequestFault(
                f"{name} is a whole parameter, of which only what training changed is for the base model, and the "
                f"value in {weights} to tell it by cannot be had: {error.message}",
                way_out="Name a folder that holds the base model with --base, and one that holds the whole checkpoint "
                "with --checkpoint.",
            ) from error

    def _refuse_other_shape(self, name: str, saved: Tensor, value: Tensor, weights: ModelWeights) -> None:
        resized = self.places.naming.module_of(name) in self.places.embeddings
        if saved.shape[1:] != value.shape[1:] or (len(saved) != len(value) and not resized):
            raise RequestFault(
                f"{name} has shape {tuple(saved.shape)}, and in {weights} it is {tuple(value.shape)}.",
                way_out="Name the base model that the checkpoint was made from.",
            )


def token_indices(name: str, config: Mapping[str, Any], naming: Naming) -> Tensor:
    """The tokens (n,) whose rows the adapter's tensor `name` has; adapter_config.json names them."""
    named, module = config.get("trainable_token_indices") or config.get("token_indices"), naming.module_of(name)
    if isinstance(named, Mapping):
        found = [rows for key, rows in named.items() if module == key or module.endswith(f".{key}")]
        named = found[0] if found else None
    if not isinstance(named, list) or not all(type(index) is int and index >= 0 for index in named):
        raise RequestFault(f"adapter_config.json does not say in trainable_token_indices which tokens {name} is of.")
    return torch.tensor(named)


def _tokens_carried_over(saved: Tensor, own: Tensor, base: Tensor, indices: Tensor) -> Tensor:
    """Rows of tokens that the base model does not have are the adapter's own."""
    known = indices < min(len(own), len(base))
    rows = carried_over(saved[known], own[indices[known]], base[indices[known]])
    return saved.to(rows.dtype).index_copy(0, known.nonzero()[:, 0], rows)


def _is_finite(tensor: Tensor) -> bool:
    """By the least and the largest, NaN where one is: asking each takes ten times as long."""
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def refuse_overflow(name: str, recovered: Tensor) -> None:
    """RequestFault for a weight that is not finite any more with what training changed of it."""
    if not _is_finite(recovered):
        raise RequestFault(
            f"{name}, with what training changed added to the base model's, is no finite number in "
            f"{str(recovered.dtype).removeprefix('torch.')}.",
            way_out="Save the adapter in fp32, or give a lower --strength.",
        )
