"""What is predicted of a training without contents is what a real one, on a CPU, computes and holds."""

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

CONFIG = TINY | {"num_hidden_layers": 1}
LAYERS, HIDDEN = CONFIG["num_hidden_layers"], CONFIG["hidden_size"]
CASE = Case("none", "small", "small", CONFIG, None, length=96, micro=2)
PLAIN = replace(CASE, four_bit=False, checkpointing=False)


def counted(case: Case, folder: Path) -> Predicted:
    """The same of tensors with contents."""
    write_random(folder, case.config, "cpu", widths=case.widths, four_bit=case.four_bit)
    tokens = torch.zeros(case.micro, case.length, dtype=torch.int64)
    with Counting() as counting:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        loaded = counting.live
        setup = case.setup(str(folder), "cpu", steps=1)
        step = training_step(with_lora(model, setup), setup, lambda: tokens)
        step()
        counting.restart()
        step()
        return Predicted(loaded, counting.peak, counting.operations)


def attention(case: Case) -> float:
    """Operations of a step, which PyTorch does not count of a CPU's kernel: two products forward, five backward."""
    forwards = 2 if case.checkpointing else 1
    return LAYERS * (forwards + 2.5) * 4 * case.micro * HIDDEN * case.length**2


@pytest.mark.parametrize("case", [CASE, replace(PLAIN, autocast=True)], ids=["nf4", "autocast"])
def test_a_step_needs_what_was_predicted(case: Case, tmp_path: Path) -> None:
    found, real = predict(case), counted(case, tmp_path)
    assert found.operations - attention(case) == pytest.approx(real.operations, rel=1e-6)
    assert found.peak == pytest.approx(real.peak, rel=0.05)


def test_a_pruned_model_is_predicted_to_hold_what_its_files_have(tmp_path: Path) -> None:
    case = replace(CASE, widths=widths_at(geometry_of(CONFIG), 0.5, protect_first=0, protect_last=0))
    write_random(tmp_path, case.config, "cpu", widths=case.widths, four_bit=True)
    files = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    found = predict(case)
    assert found.loaded == pytest.approx(files, rel=0.05)  # headers and notes besides
    assert found.loaded < predict(CASE).loaded


def test_what_is_dropped_counts_no_more() -> None:
    with Counting() as counting:
        kept = torch.zeros(1000)
        (torch.zeros(5000) + 1).sum()
    assert counting.live == kept.nbytes
    assert counting.peak >= 11_000 * kept.itemsize
