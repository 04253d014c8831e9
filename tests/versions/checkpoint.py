"""The base model and the checkpoint of tiny.py as folders: what adapters of other versions are trained on here.

python -m tests.versions.checkpoint FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from publisher.architecture.structure import Unit
from publisher.checkpoint.masks import Masks
from publisher.families.describe import describe
from tests.checkpoint.pruned import cut_state, save_checkpoint
from tests.checkpoint.recovery.methods.oracle import Folders
from tests.versions.tiny import KEPT_KV_HEADS, KEPT_NEURONS, NARROW, SIZES, computed

KEPT = {(1, Unit.KV_HEADS): KEPT_KV_HEADS, (1, Unit.NEURONS): KEPT_NEURONS}


def made(root: Path) -> Folders:
    base = LlamaForCausalLM(LlamaConfig(**SIZES))
    for name, parameter in base.named_parameters():
        parameter.data = computed(name, tuple(parameter.shape))
    geometry = describe(base.config.to_dict())
    masks = Masks(geometry.kinds, geometry.kind_of, KEPT, geometry.layer_prefix)
    pruned = LlamaForCausalLM(LlamaConfig(**SIZES, per_layer_config={1: NARROW}))
    pruned.load_state_dict(cut_state(base.state_dict(), masks))
    base.save_pretrained(root / "base")
    return Folders(root / "base", save_checkpoint(root / "checkpoint", pruned, masks=masks), masks)


if __name__ == "__main__":
    made(Path(sys.argv[1]))
