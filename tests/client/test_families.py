"""`publisher families` as people call it."""

from __future__ import annotations

import json
import subprocess
import sys

from publisher.families.known import known_families
from tests.client.test_commands import publisher


def test_the_table_tells_what_is_removed_and_why_not() -> None:
    done = publisher("families", "mixtral", "gpt2")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "MixtralForCausalLM heads, experts" in told
    assert "Cannot be pruned: 1" in told
    assert "no tensor-parallel plan" in told


def test_programs_get_all_of_it_as_json_without_loading_torch() -> None:
    code = "import sys; from publisher.client.main import cli; cli(['families', '--json'], standalone_mode=False)"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    table, _, has_torch = done.stdout.rstrip().rpartition("\n")
    assert json.loads(table) == known_families().model_dump()
    assert has_torch == "False"


def test_a_name_that_transformers_does_not_have_is_one_line() -> None:
    done = publisher("families", "lama")
    assert done.returncode == 1
    assert "has no causal language model of family lama" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_checking_anew_finds_what_the_package_says() -> None:
    done = publisher("families", "--check", "llama", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["families"]
    assert [(family["family"], family["supported"], family["units"]) for family in found] == [
        ("llama", True, ["kv_heads", "neurons"])
    ]


def test_the_data_file_is_only_written_whole() -> None:
    done = publisher("families", "--write")
    assert done.returncode == 2
    assert "--write goes with --check" in done.stderr
