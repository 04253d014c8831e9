"""What a machine without network is given: docker/wheels.py."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
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


def test_the_package_itself_is_carried_with_what_it_asks_for_where_it_is_there_already() -> None:
    assert carried("train", **{"loram-publisher": "0.1"}) == ALL_OF_TRAIN


def test_a_pytorch_of_nvidias_containers_serves_as_the_release_that_it_precedes() -> None:
    assert carried("train", torch="2.11.0a0+nv25.12") == ALL_OF_TRAIN
    for too_old in ("2.10.0a0+nv25.10", "2.11.0a0"):
        with pytest.raises(SystemExit, match=r"is there, and torch>=2\.11 is needed"):
            carried("train", torch=too_old)


def test_pip_refuses_that_pytorch_and_takes_the_next_and_any_release() -> None:
    def refused(version: str | None) -> bool:
        return bool(wheels.refused_by_pip(FOUND.values(), frozenset(), {"torch": version}, THERE))

    assert refused("2.11.0a0+nv25.12")
    assert not any(map(refused, ("2.12.0a0+nv26.1", "2.11.0+cu130", None)))


def test_other_packages_serve_as_pip_sees_it() -> None:
    assert carried("train", near="1.0a0+nv25.12") == ALL_OF_TRAIN
    assert carried("train", near="no-version") == ALL_OF_TRAIN


def test_python_is_named_by_its_version() -> None:
    assert wheels.python_version("3.12") == wheels.python_version("3.12.4") == "3.12"
    for wrong in ("3.13t", "3", "newest", "3.x"):
        with pytest.raises(SystemExit, match=r"a version like 3\.12 is needed"):
            wheels.python_version(wrong)
    with pytest.raises(SystemExit, match=r"3\.9: the package needs >=3\.11"):
        wheels.python_version("3.9")


def test_extras_are_the_packages_or_none() -> None:
    assert wheels.known_extras("") == frozenset()
    assert wheels.known_extras("train, lm_eval") == {"train", "lm-eval"}
    with pytest.raises(SystemExit, match=r"no extra trian; there are demo, .*train"):
        wheels.known_extras("sign,trian")


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


@pytest.fixture
def make(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the program on a package that is built elsewhere: setuptools is not on the index."""

    def build(folder: Path) -> Path:
        return made(folder, "loram-publisher", "torch", "near", "deep; extra == 'train'")

    def run(**options: str) -> Path:
        folder = tmp_path / "made" / "wheels"
        asked = {"python": "3.12", "to": str(folder), **options}
        monkeypatch.setattr(sys, "argv", ["wheels.py", *(f"--{name}={value}" for name, value in asked.items())])
        wheels.main()
        return folder

    monkeypatch.setattr(wheels, "build", build)
    return run


def names(folder: Path) -> set[str]:
    return {path.name.split("-")[0] for path in folder.glob("*.whl")}


def test_another_run_replaces_what_the_one_before_wrote_and_nothing_else(make: Callable[..., Path]) -> None:
    folder = make(extras="train")
    assert names(folder) == {"loram_publisher", "near", "deep"}
    (folder / "notes.txt").write_text("mine")
    assert names(make(extras="")) == {"loram_publisher", "near"}
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["wheels"]


def test_wheels_from_elsewhere_are_refused_and_stay(make: Callable[..., Path]) -> None:
    folder = make(extras="")
    foreign = made(folder, "foreign")
    with pytest.raises(SystemExit, match=r"no record of writing .foreign-1\.0-py3-none-any\.whl"):
        make(extras="train")
    assert foreign.exists()
    assert names(folder) == {"foreign", "loram_publisher", "near"}


def test_where_pip_fails_it_says_why_and_the_folder_stays(
    make: Callable[..., Path], index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make(extras="train")
    next(index.glob("near-*.whl")).unlink()
    with pytest.raises(SystemExit, match="`pip install` failed"):
        make(extras="")
    assert "No matching distribution found for near" in capfd.readouterr().err
    assert names(folder) == {"loram_publisher", "near", "deep"}
    assert [path.name for path in folder.parent.iterdir()] == ["wheels"]


def test_what_does_not_go_together_is_named(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "build", lambda folder: made(folder, "loram-publisher", "torch>=99"))
    with pytest.raises(SystemExit, match=r"loram-publisher 1\.0 depends on torch>=99[\s\S]*`pip install` failed"):
        make(extras="")


def test_an_upgrade_beside_nvidias_pytorch_says_how_it_installs(
    make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.txt"
    there.write_text("loram-publisher==1.0\nnear==1.0\ntorch==1.0a0+nv25.12\n")
    assert names(make(extras="train", there=str(there))) == {"loram_publisher", "deep"}
    assert "--no-deps --target" not in capsys.readouterr().out
    monkeypatch.setattr(wheels, "build", lambda folder: made(folder, "loram-publisher", "torch>=1.0"))
    make(extras="", there=str(there))
    assert "torch 1.0a0+nv25.12 serves, but pip sorts it before torch>=1.0" in capsys.readouterr().out
