"""What a machine without network is given: docker/wheels.py."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.tags import parse_tag

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("wheels", ROOT / "docker" / "wheels.py")
assert _spec
assert _spec.loader
wheels = importlib.util.module_from_spec(_spec)
sys.modules["wheels"] = wheels  # dataclasses look their module up
_spec.loader.exec_module(wheels)

THERE = wheels.Target("3.12", "x86_64", 28)


def package(version: str, *requires: str) -> wheels.Package:  # type: ignore[name-defined]
    return wheels.Package(version, tuple(map(Requirement, requires)))


FOUND = {
    "loram-publisher": package("0.1", "torch>=2.11", "near>=1", "deep>=2; extra == 'train'"),
    "torch": package("2.13", "cuda-part", "shared"),
    "cuda-part": package("13"),
    "shared": package("5"),
    "near": package("1.5", "shared", "modern; python_version >= '3.12'"),
    "modern": package("1"),
    "deep": package("2.1", "near[more]", "torch>=2.4", "for-windows; sys_platform == 'win32'"),
    "for-windows": package("1"),
}
ALL_OF_TRAIN = {"loram-publisher", "near", "shared", "modern", "deep"}


def carried(extras: str, **there: str | None) -> set[str]:
    return set(wheels.carried(FOUND, frozenset(extras.split()), {"torch": None} | there, THERE))


def test_pytorch_and_what_only_it_asks_for_stay_out() -> None:
    assert carried("train") == ALL_OF_TRAIN


def test_an_extra_that_is_not_asked_for_brings_nothing() -> None:
    assert carried("") == ALL_OF_TRAIN - {"deep"}


def test_what_is_there_stays_out_with_what_it_asks_for() -> None:
    assert carried("train", near="1.0") == ALL_OF_TRAIN - {"near", "modern", "shared"}


def test_what_is_there_and_too_old_is_carried() -> None:
    assert carried("train", near="0.9") == ALL_OF_TRAIN


def test_a_pytorch_that_is_too_old_is_said() -> None:
    with pytest.raises(SystemExit, match=r"torch 2.10.0 is there, and torch>=2.11 is needed"):
        carried("train", torch="2.10.0")


def test_what_pip_left_out_for_the_python_that_it_runs_on_is_named() -> None:
    without = {name: each for name, each in FOUND.items() if name != "modern"}
    with pytest.raises(SystemExit, match=r"modern.* is needed on Python 3.12"):
        wheels.carried(without, frozenset(), {"torch": None}, THERE)


def test_wheels_for_an_older_glibc_serve_and_for_a_newer_one_do_not() -> None:
    options = THERE.options()
    platforms = [option for before, option in pairwise(options) if before == "--platform"]
    assert {"manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(platforms)
    assert "manylinux_2_31_x86_64" not in platforms
    assert all(parse_tag(f"cp312-cp312-{name}") for name in platforms)


def test_what_is_there_is_listed_as_pip_lists_it_or_by_names(tmp_path: Path) -> None:
    listing = tmp_path / "there.txt"
    listing.write_text(
        "Jinja2==3.1.6\ntorch==2.11.0+cu130\ntyping_extensions==4.16.0\nnumpy\n-e git+https://x@y#egg=z\n"
    )
    expected = {"jinja2": "3.1.6", "torch": "2.11.0+cu130", "typing-extensions": "4.16.0", "numpy": None}
    assert wheels.listed(listing) == expected
    assert wheels.listed(None) == {"torch": None}


def made(folder: Path, name: str, *requires: str) -> Path:
    """The smallest wheel."""
    path = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nProvides-Extra: train"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    with ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of pip's index, and the package's wheel elsewhere."""
    folder = tmp_path / "index"
    folder.mkdir()
    made(folder, "torch", "cuda-part")
    made(folder, "cuda-part")
    made(folder, "deep", "torch", "near")
    made(folder, "near")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("index")
def test_folder_installs_without_an_index_where_pytorch_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    own = made(folder, "loram-publisher", "torch", "deep; extra == 'train'")
    wheels.collect(own, frozenset({"train"}), {"torch": None}, THERE)
    assert sorted(path.name.split("-")[0] for path in folder.glob("*.whl")) == ["deep", "loram_publisher", "near"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*command, *map(str, folder.glob("*.whl"))], check=True)
    assert {path.name for path in (tmp_path / "site").iterdir()} >= {"deep-1.0.dist-info", "near-1.0.dist-info"}
