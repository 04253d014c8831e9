"""Recovery: an adapter trained on the checkpoint becomes one for the base model, or is merged into it.

`recover_adapter` takes folders as PEFT saves them, `recover_state` and `recover_tensor` are for a LoRA in memory. What
becomes of the updates of an adapter method is that method's business (methods/), what becomes of parameters that an
adapter holds whole that of whole_parameters.py.
"""

from publisher.checkpoint.recovery.methods.lora_placement import recover_state, recover_tensor
from publisher.checkpoint.recovery.recover import merge_folder, recover_adapter, recover_folder
from publisher.checkpoint.recovery.report import RecoveryReport, TrainedOn

__all__ = [
    "RecoveryReport",
    "TrainedOn",
    "merge_folder",
    "recover_adapter",
    "recover_folder",
    "recover_state",
    "recover_tensor",
]
