"""What a downstream user may have installed: the oldest and the newest transformers and PEFT, each with each; PyTorch.

    make versions               # a virtual environment for each pair below data/versions, and the tests of TESTS there
    python -m tests.versions.run --write        # and its table into docs/loading.md

Each environment sees the packages of the one that this runs in (torch, pytest), and has transformers, PEFT and what
they ask for of its own; one has the oldest PyTorch, and takes all else from there. What is installed comes from the
index that pip is set up for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE, BEGIN, END = ROOT / "docs" / "loading.md", "<!-- made by tests/versions/run.py -->", "<!-- until here -->"
#: loading, quantizing, training with Trainer and TRL, saving, expanding, masking, recovering
TESTS = (
    "tests/loading/test_loader.py",
    "tests/checkpoint/test_compression.py",
    "tests/checkpoint/test_masked.py",
    "tests/checkpoint/test_tying.py",
    "tests/checkpoint/recovery/methods/test_lora.py",
    "tests/client/train",
    "tests/versions/test_older_adapters.py",
)
#: transformers itself refuses older PEFT where it loads adapters itself (`add_adapter`, adapters in a model's folder)
BY_TRANSFORMERS = (
    "tests/checkpoint/test_tying.py::test_adapters_that_transformers_itself_adds_and_saves_say_it_too",
    "tests/checkpoint/test_tying.py::test_adapter_that_was_saved_into_the_checkpoint_makes_it_another_model",
)
#: PEFT saves biases with bias="lora_only" since 0.21 (publisher/checkpoint/recovery/written_by.py)
BIASES = ("tests/checkpoint/recovery/methods/test_lora.py::test_biases_are_carried_over_only_where_no_row_was_cut",)
_ASK = """
import json
from importlib.metadata import version
from packaging.version import Version
from transformers.integrations.peft import MIN_PEFT_VERSION as least
names = ("transformers", "peft", "huggingface_hub", "tokenizers", "torch")
found = {name: version(name) for name in names}
print(json.dumps([found, Version(found["peft"]) < Version(least), Version(found["peft"]) < Version("0.21")]))
"""


@dataclass(frozen=True)
class Pair:
    """What pip is asked for, by a name for the environment."""

    name: str
    wanted: tuple[str, ...]


PAIRS = (
    Pair("oldest", ("transformers==5.15.0", "peft==0.18.0", "huggingface_hub==1.31.0")),
    Pair("oldest-transformers", ("transformers==5.15.0", "peft", "huggingface_hub==1.31.0")),
    Pair("oldest-peft", ("transformers", "peft==0.18.0")),
    Pair("newest", ("transformers", "peft")),
    Pair("oldest-torch", ("torch==2.11.0",)),
)


@dataclass(frozen=True)
class Outcome:
    versions: dict[str, str]
    result: str
    left_out: int


def environment(folder: Path, pair: Pair) -> Path:
    """Its interpreter."""
    python = folder / pair.name / "bin" / "python"
    if not python.exists():
        venv.create(folder / pair.name, with_pip=True)
        own = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        (Path(own.strip()) / "zz_shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", *pair.wanted], check=True)
    return python


def outcome(python: Path) -> Outcome:
    """Of TESTS there; what transformers or that PEFT refuse themselves is left out."""
    versions, too_old_for_transformers, no_biases = json.loads(_output(python, "-c", _ASK).splitlines()[-1])
    left_out = [*BY_TRANSFORMERS[: 2 * too_old_for_transformers], *BIASES[: 1 * no_biases]]
    deselect = [f"--deselect={test}" for test in left_out]
    options = ["-p", "no:cacheprovider", "-m", "not long", "-W", "ignore", "-o", "addopts=", "-q", "--tb=short"]
    log = _output(python, "-m", "pytest", *options, *deselect, *TESTS)
    print(log, flush=True)
    said = re.sub(r", \d+ deselected| in .*", "", log.splitlines()[-1])
    return Outcome(versions, said, len(left_out))


def _output(python: Path, *arguments: str) -> str:
    places = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([python, *arguments], cwd=ROOT, env=places, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip()


def table(outcomes: list[Outcome]) -> Iterator[str]:
    yield f"Run {datetime.now(UTC):%Y-%m-%d} with Python {sys.version.split()[0]}:"
    yield ""
    yield "| transformers | PEFT | huggingface_hub | torch | tests | left out |"
    yield "|---|---|---|---|---|---|"
    for each in outcomes:
        cells = [each.versions[name] for name in ("transformers", "peft", "huggingface_hub", "torch")]
        yield f"| {' | '.join([*cells, each.result, str(each.left_out)])} |"


def write(lines: list[str]) -> None:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{chr(10).join(lines)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "versions", help="of the environments")
    parser.add_argument("--pairs", nargs="*", default=[pair.name for pair in PAIRS], choices=[p.name for p in PAIRS])
    parser.add_argument("--write", action="store_true", help="the table into docs/loading.md")
    asked = parser.parse_args()
    outcomes = [outcome(environment(asked.folder, pair)) for pair in PAIRS if pair.name in asked.pairs]
    lines = list(table(outcomes))
    print("\n".join(lines))
    if asked.write:
        write(lines)
    sys.exit(any("failed" in each.result or "error" in each.result for each in outcomes))


if __name__ == "__main__":
    main()
