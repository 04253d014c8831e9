from __future__ import annotations

import re
from typing import Any

import pytest

from publisher.architecture.widths import pruned_widths
from publisher.errors import RequestFault
from publisher.families.describe import describe
from publisher.plan.align import Machine, align_memory
from publisher.plan.plan import GIB
from publisher.recipe import Recipe
from tests.architecture.test_geometry import LLAMA_2_13B
from tests.models import TINY
from worker.build.fit import refuse_too_large
from worker.models.device import Device

H100 = Device("cuda:0", "H100", 80 * GIB)
SMALL = {"model_type": "llama"} | TINY | {"num_hidden_layers": 8}


def recipe(**alignment: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "pruning": {"criterion": "random", "ratio": 0.65},
            "alignment": {"corpora": [{"name": "general"}]} | alignment,
        }
    )


def test_what_one_gpu_cannot_hold_is_refused_by_needed_and_present_memory() -> None:
    """LLaMA-2-13B at 0.65: 5.8 of 6.0 billion parameters train, at 18 bytes each."""
    with pytest.raises(RequestFault, match=r"needs about 1\d\d\.\d GiB .* cuda:0 has 80\.0 GiB.*low_rank") as fault:
        refuse_too_large(describe(LLAMA_2_13B), recipe(objective="language_model"), [H100])
    assert fault.value.field == "recipe.alignment"


def test_several_gpus_hold_it_together() -> None:
    refuse_too_large(describe(LLAMA_2_13B), recipe(objective="language_model"), [H100] * 3)


def test_a_smaller_optimizer_makes_it_fit() -> None:
    modest = recipe(objective="language_model", trainable="low_rank", batch_tokens=512)
    refuse_too_large(describe(LLAMA_2_13B), modest, [H100])


def test_smaller_optimizers_are_named_if_the_devices_can_have_them() -> None:
    """Muon keeps half of what AdamW does; two devices train with AdamW alone; none halves what Adafactor keeps."""
    geometry, gpu = describe(LLAMA_2_13B), Device("cuda:0", "small", 24 * GIB)

    def way_out(optimizer: str, devices: int) -> str:
        with pytest.raises(RequestFault) as fault:
            refuse_too_large(geometry, recipe(optimizer=optimizer), [gpu] * devices)
        return str(fault.value.way_out)

    assert '"adamw_8bit", "galore_adamw", "galore_adamw_8bit", "apollo_adamw", "adafactor"' in way_out("adamw", 1)
    assert "muon" not in way_out("adamw", 1)
    assert "galore_adamw" in way_out("adamw_8bit", 1)
    assert "smaller states" not in way_out("adamw", 2)
    assert "smaller states" not in way_out("adafactor", 1)


def test_the_teacher_counts() -> None:
    modest = recipe(trainable="low_rank", batch_tokens=512)
    with pytest.raises(RequestFault, match=r"base model as teacher 24\.2"):
        refuse_too_large(describe(LLAMA_2_13B), modest, [Device("cuda:0", "small", 24 * GIB)])


def test_a_tenth_more_than_there_is_is_tried() -> None:
    geometry, asked = describe(SMALL), recipe()
    memory = align_memory(geometry, pruned_widths(geometry, asked.pruning), asked, Machine.CPU)
    assert memory is not None
    refuse_too_large(geometry, asked, [Device("cpu", "x86", int(memory.total / 1.09))])
    with pytest.raises(RequestFault, match="worker with more memory"):
        refuse_too_large(geometry, asked, [Device("cpu", "x86", int(memory.total / 1.11))])


def test_without_alignment_nothing_is_refused() -> None:
    alone = Recipe.model_validate({"pruning": {"criterion": "random", "ratio": 0.65}})
    refuse_too_large(describe(LLAMA_2_13B), alone, [Device("cpu", "x86", 1)])


def test_what_one_device_does_besides_is_named_with_the_way_out_of_it() -> None:
    """The parts are all that is needed."""
    geometry, asked = describe(LLAMA_2_13B), recipe(batch_tokens=512)
    with pytest.raises(RequestFault, match=r"Set alignment\.gradient_matching 0, or") as fault:
        refuse_too_large(geometry, asked, [H100])
    said = re.search(r"about (.+) GiB \((.+ matching gradients .+)\), and", str(fault.value))
    assert said
    parts = [float(part.rpartition(" ")[2]) for part in said[2].split(", ") if part[-1].isdigit()]
    assert len(parts) == 5
    assert sum(parts) == pytest.approx(float(said[1]), abs=0.3)
    with pytest.raises(RequestFault) as fault:
        refuse_too_large(geometry, recipe(batch_tokens=512, gradient_matching=0), [H100])
    assert "gradient_matching" not in str(fault.value)


def test_of_several_devices_only_what_they_do_counts() -> None:
    """They neither round nor match gradients."""
    geometry, asked = describe(LLAMA_2_13B), recipe()
    memory = align_memory(geometry, pruned_widths(geometry, asked.pruning), asked, Machine.GPU)
    assert memory is not None
    both = [Device(f"cuda:{index}", "GPU", int(memory.on(2) / 2 / 1.09)) for index in range(2)]
    assert memory.on(2) < memory.total
    refuse_too_large(geometry, asked, both)
