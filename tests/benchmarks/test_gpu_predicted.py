"""What is predicted of a training without contents is what a real one, on a CPU, makes and holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.benchmarks.gpu_cases import Case
from tests.benchmarks.gpu_lora import training_step, with_lora
from tests.benchmarks.gpu_models import TINY, geometry_of, widths_at, write_random
from tests.benchmarks.gpu_predicted import Counting, Predicted, predict

CONFIG = TINY | {"num_hidden_layers": 2}
CASE = Case("none", "small", "small", CONFIG, None, length=96, micro=2)


def counted(case: Case, folder: Path) -> Predicted:
    """The same of real tensors."""
    write_random(folder, case.config, "cpu", widths=case.widths, four_bit=case.four_bit)
    tokens = torch.zeros(case.micro, case.length, dtype=torch.int64)
    with Counting() as counting:
        # under the mode, so that what is loaded is counted
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        setup = case.setup(str(folder), "cpu", steps=1)
        step = training_step(with_lora(model, setup), setup, lambda: tokens)
        step()
        counting.restart()
        before = counting.live
        step()
        return Predicted(before, counting.peak - before, counting.operations)


@pytest.mark.parametrize(
    "case",
    [
        CASE,
        replace(CASE, widths=widths_at(geometry_of(CONFIG), 0.5, protect_first=0, protect_last=1)),
        replace(CASE, four_bit=False, checkpointing=False),
        replace(CASE, four_bit=False, checkpointing=False, autocast=True),
    ],
    ids=["nf4", "pruned", "bf16", "autocast"],
)
def test_a_step_needs_what_was_predicted(case: Case, tmp_path: Path) -> None:
    found, real = predict(case), counted(case, tmp_path)
    print(case, found, real)
    assert found.operations == pytest.approx(real.operations, rel=1e-3)
