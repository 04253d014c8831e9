"""Adapters of older versions of PEFT: what these made of the checkpoint is what recovery makes of the base model.

The files in adapters/peft-0.17.0 were written by record.py with PEFT 0.17.0, transformers 4.57.6 and torch 2.13.0;
PUBLISHER_ADAPTERS names folders of other versions (run.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from publisher.checkpoint.recovery import recover_adapter
from publisher.errors import RequestFault
from tests.checkpoint.recovery.methods.oracle import Folders, error
from tests.versions.checkpoint import made

PLACES = [Path(place) for place in os.environ.get("PUBLISHER_ADAPTERS", "").split(os.pathsep) if place]
RECORDED = [*(PLACES or [Path(__file__).parent / "adapters" / "peft-0.17.0"])]
CASES = sorted(folder for place in RECORDED for folder in place.iterdir() if folder.is_dir())
#: of fp32, in the largest entry of a change
ROUNDING = 2e-6
#: what PEFT itself makes of such a file today is not what it made of it then: up to 0.17 the last term of the series
#: that OFT approximates a rotation by counted twice, which the file does not say
SINCE_CHANGED = {"peft-0.17.0": {"oft": 1e-4}}
#: what no version makes the same again (written_by.py)
NOT_AGAIN = {("peft-0.19.1", "adamss")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return made(tmp_path_factory.mktemp("tiny"))


def recorded(folders: Folders, case: Path) -> dict[str, Tensor]:
    changes = load_file(case / "change.safetensors")
    shapes = {name: tensor.shape for name, tensor in folders.trainable().state_dict().items()}
    return {name: folders.scattered(name, changes.get(name, torch.zeros(shape))) for name, shape in shapes.items()}


@pytest.mark.parametrize("case", CASES, ids=[f"{case.parent.name}-{case.name}" for case in CASES])
def test_what_an_older_peft_merges_is_what_recovery_merges(tmp_path: Path, folders: Folders, case: Path) -> None:
    if (case.parent.name, case.name) in NOT_AGAIN:
        with pytest.raises(RequestFault, match="did not write down the seed"):
            recover_adapter(case, folders.checkpoint, tmp_path / "out", base_model=str(folders.base), merge=True)
        return
    expected, allowed = recorded(folders, case), SINCE_CHANGED.get(case.parent.name, {}).get(case.name, ROUNDING)
    recover_adapter(case, folders.checkpoint, tmp_path / "out", base_model=str(folders.base), merge=True)
    assert error(folders.merged(tmp_path / "out"), expected) < allowed
