"""The commands on a variant's page, run as they stand: by the command line's own code, on what a Hub serves."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from publisher.client.main import cli
from publisher.client.train.command import train
from publisher.dashboard.usage import commands
from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication
from tests.checkpoint.pruned import lora, make_pair, save_checkpoint
from tests.dashboard.conftest import RunningDashboard
from tests.dashboard.results import measured, publish
from tests.dashboard.rows import Account

PUBLICATION = Publication(endpoint="https://huggingface.co", repo_id="org/small", commit="ab" * 20, url="https://x")


def commands_of(page: str) -> dict[str, str]:
    """By their titles."""
    found = re.findall(r"<h3[^>]*>([^<]+)</h3>\s*<div class=\"copyable\"><pre[^>]*><code>(.*?)</code>", page, re.DOTALL)
    return {unescape(title): unescape(lines) for title, lines in found}


def words(lines: str) -> list[str]:
    """As a shell has them."""
    return shlex.split(lines.replace("\\\n", ""))


def run(lines: str, **places: Path) -> Result:
    """`publisher …`, with folders in the place of the names that stand for them."""
    name, *arguments = words(lines)
    assert name == "publisher"
    put = {"my-training/adapter": "adapter", "path/to/base-model": "base", "recovered": "recovered", "merged": "merged"}
    return CliRunner().invoke(cli, [str(places[put[word]]) if word in put else word for word in arguments])


def test_a_checkpoint_is_verified_recovered_from_and_merged_by_the_page_s_commands(
    dashboard: RunningDashboard, account: Account, browser: httpx.Client, tmp_path: Path
) -> None:
    pair = make_pair()
    pair.base.save_pretrained(tmp_path / "base")
    lora(pair.pruned).save_pretrained(tmp_path / "adapter")
    folder = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    work = publish(dashboard, account, files, manifest=json.loads(files["loram.json"]))
    found = commands_of(browser.get(f"/variants/{work.variant_id}").text)
    places = {name: tmp_path / name for name in ("adapter", "base", "recovered", "merged")}
    for title in ("Verify every file", "Recover what was trained", "Merge it into the base model"):
        done = run(found[title], **places)
        assert done.exit_code == 0, (title, done.output)
    assert (tmp_path / "recovered/adapter_config.json").is_file()
    assert (tmp_path / "merged/config.json").is_file()
    name, command, *arguments = words(found["Train a LoRA on it"])
    assert (name, command) == ("publisher", "train")
    assert train.make_context("train", arguments).params["checkpoint"] == f"{account.name}/small"
    assert found["Once in your shell"] == f"export HF_ENDPOINT={dashboard.url}/hub"
    compile(found["Load it in transformers"], "load", "exec")


def titles(manifest: Manifest | None = None, *, private: bool = False, files: tuple[str, ...] = ()) -> dict[str, str]:
    return {each.title: each.lines for each in commands(PUBLICATION, manifest, files, private=private)}


def test_on_the_default_hub_nothing_is_set_unless_it_is_private() -> None:
    assert "Once in your shell" not in titles()
    assert titles(private=True)["Once in your shell"].startswith("export HF_TOKEN=")
    assert not any("--endpoint" in lines for lines in titles().values())


def test_what_lost_single_weights_is_recovered_into_the_base_model() -> None:
    told = measured()
    told["recipe"]["pruning"]["method"] = "unstructured"
    found = titles(Manifest.parse(told, "here"))
    assert "--base path/to/base-model --output merged" in found["Recover what was trained"]
    assert "Merge it into the base model" not in found


def test_a_base_model_without_a_public_name_is_asked_for() -> None:
    told = measured(base={"repo_id": "my-folder", "revision": "c" * 40})
    assert "--base path/to/base-model" in titles(Manifest.parse(told, "here"))["Recover what was trained"]


@pytest.mark.parametrize("name", ["org/a b; rm -rf ~", "org/$(id)", "org/it's"])
def test_names_are_quoted_for_the_shell(name: str) -> None:
    hostile = PUBLICATION.model_copy(update={"repo_id": name})
    for each in commands(hostile, None, [], private=False):
        if each.lines.startswith("publisher") and "merge" not in each.title.lower():
            assert name in words(each.lines)
