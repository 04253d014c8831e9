from __future__ import annotations

import pytest
from rich.console import Console

from publisher.client.demo.table import (
    Measured,
    UserPerplexity,
    UserTraining,
    certificate_line,
    results_table,
    speed_line,
)
from publisher.errors import InfrastructureFault
from publisher.manifest.manifest import Manifest
from tests.manifest.contents import certificate, content, evaluation

ALIGNMENT = {"steps": 3, "tokens": 300, "seconds": 1.5, "peak_memory_bytes": 5 * 2**20}
TRAINING = UserTraining(tokens=1000, seconds=4.0, peak_memory_bytes=7 * 2**20, device="cpu")
USER = UserPerplexity(base=76.62, recovered=60.5)


def measured(**changes: object) -> Measured:
    direct = certificate(direct=54.4, direct_perplexity={"novel": 54.4})
    made = content(alignment=ALIGNMENT, evaluation=evaluation(direct)) | changes
    return Measured.of(Manifest.parse(made, "here"), TRAINING, USER)


def shown(table: object) -> list[list[str]]:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(table)
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in captured.get().splitlines() if "│" in line]


def test_table_tells_each_model_by_the_published_manifest_and_what_the_user_measured() -> None:
    rows = {name: numbers for name, *numbers in shown(results_table(measured()))}
    assert rows["base"][0] == "76.62"
    assert rows["pruned"][0] == "419.10"
    assert rows["aligned"] == ["131.70", "0 MiB", "5 MiB (align)"]
    assert rows["4-bit, as published"][0] == "140.20"
    assert rows["base + recovered probe (certificate: passed)"][0] == "64.00"
    assert rows["base + your recovered adapter"] == ["60.50", "", "7 MiB (LoRA)"]


def test_lines_below_say_what_it_rests_on_and_how_fast_it_was() -> None:
    assert "by 0.180 ± 0.020 nats per token" in certificate_line(measured())
    assert speed_line(measured()) == (
        "Tokens per second on cpu: align 200, probe 13,653, LoRA 250. The recovered probe keeps 57% of the gain of a "
        "LoRA on the base model."
    )


def test_manifest_without_what_the_demo_asks_for_is_refused() -> None:
    with pytest.raises(InfrastructureFault, match="lacks alignment, evaluation or certificate"):
        measured(alignment=None)
