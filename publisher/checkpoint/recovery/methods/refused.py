"""Methods that have no recovery, each with the reason."""

from __future__ import annotations

from functools import partial

from publisher.checkpoint.recovery.method import AdapterMethod, Config, Ending
from publisher.checkpoint.recovery.methods.matrix_method import in_the_tensors
from publisher.checkpoint.recovery.naming import Naming
from publisher.errors import RequestFault

_PER_HEAD = (
    "its keys and values have one number of heads for all layers, which a checkpoint of unequal layers does not have, "
    "and heads that were removed would attend to whatever stood there"
)


def _refuse(title: str, why: str, config: Config) -> None:
    raise RequestFault(f"The adapter was trained with {title}: {why}.", way_out="Train a LoRA (peft_type LORA).")


def _refused(peft_type: str, title: str, mark: str, why: str) -> AdapterMethod:
    return AdapterMethod(
        peft_type=peft_type,
        title=title,
        naming=Naming((mark,)),
        refuse=partial(_refuse, title, why),
        scale=in_the_tensors,
        ending=Ending.REFUSED,
        why=why,
    )


REFUSED = (
    _refused("PREFIX_TUNING", "prefix tuning", "prompt_embeddings", _PER_HEAD),
    _refused("CARTRIDGE", "Cartridge", "prompt_embeddings", _PER_HEAD),
    _refused(
        "ADAPTION_PROMPT",
        "adaption prompts",
        ".adaption_",
        "PEFT gives every layer the heads of the config, so that it cannot be trained where layers have others, and "
        "heads that were removed would attend to the prompts, too",
    ),
    _refused(
        "XLORA",
        "X-LoRA",
        "xlora_",
        "a classifier mixes adapters anew for every token; each of them lies in a folder of its own, and can be "
        "recovered by itself",
    ),
    _refused(
        "LILY",
        "LILY",
        ".lily_",
        "layers share A and B, of which each layer of the checkpoint kept other rows and columns, so that on the base "
        "model no shared one is right for all",
    ),
    _refused(
        "SHADOW",
        "ShadowPEFT",
        "shadow_",
        "it is a network beside the model, which PEFT makes after the config of the model that it is on, and the base "
        "model's has other widths",
    ),
)
