"""An adapter that is opened for recovery, and the folder that it comes from and goes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.checkpoint.recovery.places import AdapterPlaces
from publisher.checkpoint.recovery.tensors import AdapterTensors
from publisher.checkpoint.recovery.whole_parameters import WholeParameters


@dataclass(frozen=True)
class Adapter:
    """What a method's functions are given.

    `config`: adapter_config.json, in which the method has put `strength` where it can be put; one that cannot
    multiplies its update itself. `tensors` under PEFT's names, `places` all that PEFT makes for it on the model;
    `whole`: what recovers its whole parameters, and knows the weights of checkpoint and base model. Without these two
    it is taken for what PEFT saved, with no whole parameters. `rank`: of the LoRA that is asked for in place of
    what the method would become by itself.
    """

    config: Mapping[str, Any]
    tensors: AdapterTensors
    strength: float = 1.0
    places: AdapterPlaces | None = None
    whole: WholeParameters | None = None
    rank: int | None = None
