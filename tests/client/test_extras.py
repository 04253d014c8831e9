"""A package without its extras: what works all the same, and which extra is named where something does not."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from publisher.client.extras import EXTRAS, missing_of
from tests.checkpoint.pruned import make_pair, save_checkpoint

ROOT = Path(__file__).parents[2]
#: huggingface-hub asks for these, too
_THERE_ANYWAY = {"filelock", "pyyaml"}
_WITHOUT = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from publisher.client.main import main
main(sys.argv[2:])
"""


def without(modules: set[str] | frozenset[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`publisher …` where these modules are not installed."""
    command = [sys.executable, "-c", _WITHOUT, ",".join(sorted(modules)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_the_client_needs_neither_extra() -> None:
    code = "\n".join(
        [
            "import sys",
            f"for name in {sorted(EXTRAS['train'] | EXTRAS['service'])}: sys.modules[name] = None",
            "import publisher.checkpoint",
            "from publisher.client import AsyncClient, Client",
            "from publisher.client.main import cli",
            "for words in ('login', 'jobs list', 'submit', 'pull', 'keys create', 'variants show', 'workers',",
            "              'train'):",
            "    cli([*words.split(), '--help'], standalone_mode=False)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_local_checkpoint_is_verified_without_transformers_and_peft(tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", make_pair().pruned)
    done = without(EXTRAS["train"] | EXTRAS["service"], "verify", str(checkpoint))
    assert done.returncode == 0, done.stderr
    assert "all 4 files are as they were published" in done.stdout


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("uvicorn", ["up"], "service"),
        ("pydantic_settings", ["up"], "service"),
        ("celery", ["up"], "service"),
        ("sqlalchemy", ["admin", "key", "list"], "service"),
        ("transformers", ["build", "no-model", "never", "--recipe", "pyproject.toml"], "train"),
        ("sqlalchemy", ["build", "no-model", "never", "--recipe", "pyproject.toml"], "service"),
        ("celery", ["demo", "--prepare", "--data", "never"], "service"),
        ("gguf", ["demo", "--prepare", "--data", "never"], "demo"),
        ("trl", ["train", ".", "--data", "never", "--output", "never"], "train"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(module: str, arguments: list[str], extra: str) -> None:
    done = without({module}, *arguments)
    assert done.returncode == 1
    assert done.stderr == f"Error: {module}: not installed here. Run `pip install 'loram-publisher[{extra}]'`.\n"


def test_a_module_that_no_extra_brings_is_a_fault_of_the_code() -> None:
    assert missing_of(ModuleNotFoundError("no", name="publisher.nowhere")) is None


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_of_an_extra_are_those_of_its_packages(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # what others bring, an extra may ask for in fewer versions
    others = names(project["dependencies"]) | (names(extras["train"]) if extra != "train" else set())
    packages = names(extras[extra]) - others - _THERE_ANYWAY - {"loram-publisher"}
    brought = {canonicalize_name(package) for module in EXTRAS[extra] for package in packages_distributions()[module]}
    assert packages <= brought, f"say in publisher/client/extras.py what {packages - brought} are imported as"


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def test_what_everybody_needs_is_no_part_of_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^\w-]", each)[0] for each in project["dependencies"]}
    assert not needed & {"transformers", "peft", "bitsandbytes", "accelerate", "fastapi", "sqlalchemy"}
