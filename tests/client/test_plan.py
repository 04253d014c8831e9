"""`publisher plan` from a config alone, against the paper's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from publisher.client.plan import plan
from publisher.errors import RequestFault
from tests.architecture.test_geometry import LLAMA_2_13B, LLAMA_2_70B
from tests.architecture.test_widths import LLAMA_31_70B, MIXTURE


def run(folder: Path, config: dict[str, Any], recipe: dict[str, Any], *options: str) -> Result:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "recipe.json").write_text(json.dumps(recipe))
    files = ["--config", str(folder / "config.json"), "--recipe", str(folder / "recipe.json")]
    return CliRunner(env={"COLUMNS": "200"}).invoke(plan, [*files, "--flops", "1e12", *options])


@pytest.mark.parametrize(
    ("config", "ratio", "base", "pruned", "reduction", "with_nf4"),
    [
        (LLAMA_2_13B, 0.65, 13_015_864_320, 6_005_662_720, 2.17, None),
        (LLAMA_2_70B, 0.65, 68_976_648_192, 28_099_436_544, 2.45, 9.82),
        (LLAMA_2_70B, 0.75, 68_976_648_192, 21_488_738_304, 3.21, 12.84),
        (LLAMA_2_70B, 0.85, 68_976_648_192, 16_272_924_672, 4.24, 16.95),
        (LLAMA_2_70B, 0.95, 68_976_648_192, 9_662_226_432, 7.14, 28.56),
        (LLAMA_31_70B, 0.85, 70_553_706_496, 17_849_982_976, 3.95, 15.81),
    ],
)
def test_structured_rows_of_the_papers_tables_4_to_6(
    config: dict[str, Any],
    ratio: float,
    base: int,
    pruned: int,
    reduction: float,
    with_nf4: float | None,
    tmp_path: Path,
) -> None:
    """The paper's own: first 4 and last 2 layers whole. Table 6 counts 4 bits as a quarter."""
    result = run(tmp_path, config, {"pruning": {"criterion": "random", "ratio": ratio}}, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["parameters"] == {"base": base, "pruned": pruned}
    assert round(found["reduction"]["parameters"], 2) == reduction
    if with_nf4:
        assert found["reduction"]["bytes_ideal"] == pytest.approx(with_nf4, abs=0.006)


def test_4_of_8_over_all_layers_leaves_half_of_the_linear_weights(tmp_path: Path) -> None:
    semi = {"method": "semi_structured", "criterion": "magnitude", "pattern": "4:8"}
    recipe = {"pruning": semi | {"protect_first": 0, "protect_last": 0}, "quantization": {"scheme": "none"}}
    found = json.loads(run(tmp_path, LLAMA_2_13B, recipe, "--json").stdout)
    assert found["parameters"]["pruned"] == 6_671_979_520
    assert found["base_widths"] == found["widths"]


def test_the_table_says_which_layers_lose_what(tmp_path: Path) -> None:
    recipe = {"pruning": {"criterion": "random", "ratio": 0.5, "protect_first": 1, "protect_last": 1}}
    shown = run(tmp_path, MIXTURE, recipe).output
    assert "layer 1" in shown
    assert "1 of 2 KV heads, 24 of 48 neurons" in shown
    assert "1 of 2 KV heads, 4 of 8 experts" in shown
    assert "experts of a layer in one tensor" in shown


def test_the_table_says_what_masks_keep(tmp_path: Path) -> None:
    pruning = {"method": "unstructured", "criterion": "magnitude", "ratio": 0.6, "storage": "compressed"}
    shown = run(tmp_path, LLAMA_2_13B, {"pruning": pruning, "quantization": {"scheme": "none"}}).output
    assert "0.4 of the weights stay in the projections of layers 4-37" in shown
    assert "expanded on load" in shown


def test_speed_in_fp32_is_that_of_matched_gradients(tmp_path: Path) -> None:
    recipe = {"pruning": {"criterion": "random", "ratio": 0.65}, "alignment": {"corpora": [{"name": "prose"}]}}
    fast, slow = (
        json.loads(run(tmp_path, LLAMA_2_13B, recipe, "--json", *speed).output)["minutes"]["align"]
        for speed in ((), ("--fp32-flops", "1e11"))
    )
    assert slow > 3 * fast


def test_kernels_that_are_not_installed_are_left_out_and_told(tmp_path: Path) -> None:
    recipe = {"pruning": {"criterion": "random", "ratio": 0.65}}
    plain = json.loads(run(tmp_path, LLAMA_2_13B, recipe, "--json").stdout)
    config = LLAMA_2_13B | {"attn_implementation": "flash_attention_2", "_attn_implementation": "flex"}
    found = json.loads(run(tmp_path, config, recipe, "--json").stdout)
    assert found["parameters"] == plain["parameters"]
    assert len(found["notes"]) == len(plain["notes"]) + 2
    assert "config.json has attn_implementation = 'flash_attention_2': left out" in found["notes"][0]


def test_a_config_with_a_byte_order_mark_is_planned_and_one_nested_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"pruning": {"criterion": "random", "ratio": 0.65}}', encoding="utf-8-sig")
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_2_13B), encoding="utf-8-sig")
    files = ["--config", str(tmp_path / "config.json"), "--recipe", str(tmp_path / "recipe.json"), "--flops", "1e12"]
    assert CliRunner().invoke(plan, files).exit_code == 0
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    refused = CliRunner().invoke(plan, files)
    assert isinstance(refused.exception, RequestFault)
    assert "nested too deep" in str(refused.exception)
