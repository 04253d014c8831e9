"""The `publisher` command as a process, as people call it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.test_geometry import LLAMA_2_13B


def publisher(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "publisher.client.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """config.json of LLaMA-2-13B and the paper's recipe."""
    config, recipe = tmp_path / "config.json", tmp_path / "recipe.json"
    config.write_text(json.dumps(LLAMA_2_13B))
    recipe.write_text(
        json.dumps({"pruning": {"criterion": "random", "ratio": 0.65, "protect_first": 4, "protect_last": 2}})
    )
    return str(config), str(recipe)


def test_a_plan_from_a_config_alone_has_the_papers_counts(files: tuple[str, str]) -> None:
    config, recipe = files
    done = publisher("plan", "--config", config, "--recipe", recipe, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == {"base": 13_015_864_320, "pruned": 6_005_662_720}


def test_a_plan_for_people_is_a_table(files: tuple[str, str]) -> None:
    config, recipe = files
    done = publisher("plan", "--config", config, "--recipe", recipe)
    assert "13,015,864,320 → 6,005,662,720" in done.stdout


def test_a_wrong_recipe_is_one_line_and_refused(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"pruning": {"criterion": "random", "ratio": 2}}')
    done = publisher("plan", "--config", files[0], "--recipe", str(tmp_path / "wrong.json"))
    assert done.returncode == 4
    assert done.stderr.startswith("Error: ")
    assert "recipe.pruning.ratio: 2 is not valid" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_every_command_without_loading_torch() -> None:
    code = "import sys; from publisher.client.main import cli; cli(['-h'], standalone_mode=False)"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    for command in ("admin", "build", "demo", "follow", "jobs", "login", "plan", "pull", "recover", "submit", "up"):
        assert f"  {command} " in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_up_refuses_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = publisher("up", "--port", str(port), "--data", str(tmp_path / "data"))
    assert done.returncode == 4
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_command_of_the_worker_says_so_where_there_is_no_worker() -> None:
    """As in the image of the API: the package's entry points are there, the worker's code is not."""
    code = "import sys; sys.modules['worker'] = None; from publisher.client.main import main; main()"
    command = [sys.executable, "-c", code, "build", "base", "out", "--recipe", "recipe.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: `publisher build` needs the worker's code, which is not installed here.\n"


LIGHT = [[], ["build"], ["families", "--check"], ["jobs", "list"], ["recover"], ["up"], ["demo"], ["hub"]]


@pytest.mark.parametrize("command", LIGHT, ids=" ".join)
def test_help_answers_without_what_takes_seconds_to_load(command: list[str]) -> None:
    code = "import sys; from publisher.client.main import cli; cli(sys.argv[1:], standalone_mode=False)"
    code += "; print([name for name in ('torch', 'transformers', 'peft', 'celery') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
