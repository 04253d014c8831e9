"""How a method is declared that ends as its realised change: one line each in of_matrices.py and of_weights.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from publisher.checkpoint.recovery.as_changes import as_changes
from publisher.checkpoint.recovery.as_lora import as_lora
from publisher.checkpoint.recovery.changes import Together
from publisher.checkpoint.recovery.method import AdapterMethod, Config, Ending, always
from publisher.checkpoint.recovery.naming import Naming


def takes_all(config: Config) -> None:
    """Of methods whose options only change what PEFT makes of the adapter, which is asked (realised.py)."""


def in_the_tensors(config: Config, strength: float) -> dict[str, Any]:
    """Of methods whose update itself is multiplied when it is put back: no field of the config could say it."""
    return dict(config)


def of_matrices(
    peft_type: str,
    title: str,
    *marks: str,
    why: str,
    on_weights: str = "",
    together: Together = Together.ALONE,
    indices: tuple[str, ...] = (),
    refuse: Callable[[Config], None] = takes_all,
    covers: Callable[[Config], bool] = always,
    variant: str = "",
) -> AdapterMethod:
    """`why`: its factors are not put back themselves; the others as in AdapterMethod and Naming."""
    lora = partial(as_lora, together=together)
    return AdapterMethod(
        peft_type=peft_type,
        title=title,
        naming=Naming(marks, indices),
        refuse=refuse,
        scale=in_the_tensors,
        recover=lora,
        merge=partial(as_changes, together=together),
        truncate=lora,
        covers=covers,
        variant=variant,
        ending=Ending.REALISED,
        why=why,
        on_weights=on_weights,
        needs_weights=True,
    )
