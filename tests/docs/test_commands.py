"""The commands in README and docs/ run as pasted, into a clone with a tiny model in the place of the demo's."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, blocks_of
from tests.docs.session import make_clone, run_page
from tests.e2e.conftest import write_text
from tests.models import tiny_llama

RUNNABLE = [page for page in PAGES if any(block.runs for block in blocks_of(page))]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """After `publisher demo --prepare`, but that the model is tiny: deep enough for what recipes protect."""
    demo = tmp_path / "data" / "demo"
    tiny_llama(demo / "models" / "SmolLM2-135M-Instruct", num_hidden_layers=8)
    for seed, name in enumerate(("classics", "novel", "python-docs")):
        write_text(demo / "corpora" / f"{name}.jsonl", documents=120, words=60, seed=seed)
    (tmp_path / "data" / "tour" / "hub").mkdir(parents=True)
    return make_clone(tmp_path)


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.mark.e2e
@pytest.mark.timeout(900)  # a minute or two on one core that is free
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run_as_pasted(page: Path, clone: Path) -> None:
    done = run_page(blocks_of(page), clone, *free_ports())
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\ntrue\n```\n\n```sh\nfalse | cat\n```\n\n```sh\necho reached\n```\n")
    done = run_page(blocks_of(page), make_clone(tmp_path / "clone"), *free_ports())
    assert done.returncode != 0
    assert "reached" not in done.stdout
    assert done.stderr.splitlines()[-1] == "failed: page.md:5"
