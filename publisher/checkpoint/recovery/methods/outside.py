"""Methods that train nothing where pruning took something: prompts, norms, tokens. Prompts are the adapter's own and
pass through bit by bit; norms and tokens are recovered as differences (whole_parameters.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.adapter import Adapter
from publisher.checkpoint.recovery.method import AdapterMethod, Change, Config, Ending, Update, everywhere, one_to_one
from publisher.checkpoint.recovery.methods.matrix_method import takes_all
from publisher.checkpoint.recovery.naming import PEFT_PREFIX, TOKENS, Naming
from publisher.checkpoint.recovery.whole_parameters import refuse_cut, token_indices
from publisher.errors import RequestFault
from publisher.weights.writing import Entry, dtype_name


def _as_it_is(adapter: Adapter, masks: PruningMasks) -> Update:
    return one_to_one(adapter, lambda name, shape: shape, lambda name, tensor: tensor)


def _no_strength(title: str, config: Config, strength: float) -> dict[str, Any]:
    if strength != 1:
        raise RequestFault(
            f"What {title} trained is no update of weights, which alone can be multiplied.",
            field="strength",
            way_out="Recover it with --strength 1.",
        )
    return dict(config)


def _prompts(peft_type: str, title: str, *marks: str) -> AdapterMethod:
    return AdapterMethod(
        peft_type=peft_type,
        title=title,
        naming=Naming(marks),
        refuse=takes_all,
        scale=partial(_no_strength, title),
        recover=_as_it_is,
        stays_adapter=everywhere,
        multiplied=False,
        ending=Ending.PASSED,
        why="prompts have the hidden size, which pruning leaves",
    )


def _difference(adapter: Adapter, name: str) -> Tensor:
    if adapter.whole is None:
        raise RequestFault(
            f"{name} is a copy of a parameter, and what it was before training is not known.",
            way_out="Save the adapter, and recover its folder with the checkpoint's.",
        )
    return adapter.whole.recovered(name, adapter.tensors.read(name))


def _as_differences(adapter: Adapter, masks: PruningMasks) -> Update:
    tensors = adapter.tensors
    for name in tensors.updates:
        refuse_cut(f"{PEFT_PREFIX}{tensors.naming.parameter_of(name)}", masks, "adapter")
    entries = [
        Entry(name, dtype_name(_difference(adapter, name).dtype), tensors.shape(name)) for name in tensors.updates
    ]
    return Update(entries, partial(_difference, adapter), adapter.config)


def _in_the_base(adapter: Adapter, masks: PruningMasks) -> Iterator[Change]:
    tensors = adapter.tensors
    for name in tensors.updates:
        weight = tensors.naming.parameter_of(name)
        refuse_cut(f"{PEFT_PREFIX}{weight}", masks, "adapter")
        shape: tuple[int | None, ...] = (None, *tensors.shape(name)[1:])
        yield Change(name, weight, shape, partial(_replaced, adapter, name))


def _replaced(adapter: Adapter, name: str, weight: Tensor) -> Tensor:
    found = _difference(adapter, name).to(weight.dtype)
    if not name.endswith(TOKENS):
        return found
    return weight.index_copy(0, token_indices(name, adapter.config, adapter.tensors.naming), found)


def _differences(peft_type: str, title: str, mark: str, why: str) -> AdapterMethod:
    return AdapterMethod(
        peft_type=peft_type,
        title=title,
        naming=Naming((mark,)),
        refuse=takes_all,
        scale=partial(_no_strength, title),
        recover=_as_differences,
        merge=_in_the_base,
        stays_adapter=everywhere,
        multiplied=False,
        ending=Ending.PASSED,
        why=why,
    )


OUTSIDE = (
    _prompts("PROMPT_TUNING", "prompt tuning", "prompt_embeddings"),
    _prompts("P_TUNING", "p-tuning", "prompt_embeddings"),
    _prompts("MULTITASK_PROMPT_TUNING", "multitask prompt tuning", "prompt_embeddings", "prefix_task_"),
    _prompts("CPT", "context-aware prompt tuning", "prompt_embeddings"),
    _differences("LN_TUNING", "LN tuning", ".ln_tuning_", "norms are whole: what training changed of them is added"),
    _differences(
        "TRAINABLE_TOKENS", "trainable tokens", TOKENS, "embeddings are whole: what training changed of them is added"
    ),
)
