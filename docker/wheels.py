"""A folder of wheels for a machine without network: this checkout's own, and those of all that it asks for.

    make wheels PYTHON_VERSION=3.12 EXTRAS=train
    python docker/wheels.py --python 3.12 --extras train,sign --there there.txt --to FOLDER

PyTorch is left out, with what only PyTorch asks for: such machines have a build of their own. `--there` names more that
is there (`pip list --format=freeze`, run there); each is left out where its version serves. Versions are those of
constraints.txt, which the tests ran with. What to install is pip's answer, from the index that it is set up for.

The folder changes only once the new set is complete. What an earlier run wrote into it is replaced; wheels from
elsewhere stop this, since they would be installed with ours, and other files stay.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[1]
PACKAGE = "loram-publisher"
#: what the package is built from; a copy, so that nothing an earlier build left in the checkout gets into it
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "publisher", "worker", "migrations")
#: names of manylinux before they had glibc's version in them
_OLDER = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
#: in the folder: the names of the wheels that this wrote there, and may take away again
_WRITTEN = ".written-by-make-wheels"
_PYTHON = re.compile(r"(?P<minor>3\.\d+)(\.\d+)?")
_LISTED = re.compile(r"(?P<name>[\w.-]+)(==(?P<version>\S+))?")


@dataclass(frozen=True)
class Target:
    """The machine: Python's version (3.12), its processor (x86_64) and glibc 2's minor version (28)."""

    python: str
    machine: str
    glibc: int

    def options(self) -> list[str]:
        """Of pip, which takes wheels for exactly the platforms that are named."""
        names = [f"manylinux_2_{minor}_{self.machine}" for minor in range(self.glibc, 4, -1)]
        names += [f"{name}_{self.machine}" for minor, name in _OLDER.items() if minor <= self.glibc]
        platforms = [option for name in names for option in ("--platform", name)]
        return ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}", *platforms]

    def markers(self) -> dict[str, str]:
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
        }


@dataclass(frozen=True)
class Package:
    """What pip found for a name, and what that asks for."""

    version: str
    requires: tuple[Requirement, ...]


def build(folder: Path) -> Path:
    """This checkout's wheel, in `folder`."""
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCES:
            source, place = ROOT / name, Path(copy) / name
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, place)
        _pip("wheel", "--no-deps", f"--wheel-dir={folder}", copy)
    return next(folder.glob("loram_publisher-*.whl"))


def resolved(asked: Iterable[str], target: Target) -> dict[str, Package]:
    """By canonical name, all that `asked` (requirements) would install there; nothing is installed."""
    pinned = (ROOT / "docker" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder) / "report.json", Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(line for line in pinned if not line.startswith("torch==")), encoding="utf-8")
        options = ["--dry-run", "--ignore-installed", f"--target={folder}/none", f"--report={report}"]
        _pip("install", *options, f"--constraint={constraints}", *target.options(), *asked)
        found = [each["metadata"] for each in json.loads(report.read_bytes())["install"]]
    return {
        canonicalize_name(each["name"]): Package(
            each["version"], tuple(map(Requirement, each.get("requires_dist", ())))
        )
        for each in found
    }


def carried(
    packages: Mapping[str, Package], extras: frozenset[str], there: Mapping[str, str | None], target: Target
) -> dict[str, str]:
    """Versions by name: what of `packages` the machine lacks.

    there: versions by name; None stands for one that serves. The package itself is always carried: an older one there
    is to be replaced. Stops where PyTorch there is too old, or where the machine needs what pip did not think of here.
    """
    there = {name: version for name, version in there.items() if name != PACKAGE}
    kept: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(_package_with(extras))]
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        is_there = name in there and _serves(there[name], needed)
        if not is_there:
            kept[name] = _version(needed, packages, there, target)
        # of what is there, only what its extras ask for may be missing
        asked = needed.extras if is_there else {"", *needed.extras}
        fresh = {extra for extra in asked if (name, extra) not in seen}
        seen |= {(name, extra) for extra in fresh}
        waiting += _asked_for(packages[name], fresh, target) if name in packages else ()
    return kept


def _version(
    needed: Requirement, packages: Mapping[str, Package], there: Mapping[str, str | None], target: Target
) -> str:
    name = canonicalize_name(needed.name)
    if name == "torch":
        sys.exit(f"torch {there[name]} is there, and {needed} is needed")
    if name not in packages:
        sys.exit(f"{needed} is needed on Python {target.python}, not on this one: run this with that Python")
    return packages[name].version


def _asked_for(package: Package, extras: Set[str], target: Target) -> Iterator[Requirement]:
    """By the package itself (extra "") or by its extras alone."""
    for needed in package.requires:
        always, *others = (_applies(needed, extra, target) for extra in ("", *extras))
        if (always and "" in extras) or (not always and any(others)):
            yield needed


def _applies(needed: Requirement, extra: str, target: Target) -> bool:
    return needed.marker is None or needed.marker.evaluate({**target.markers(), "extra": extra})


def _serves(version: str | None, needed: Requirement) -> bool:
    return version is None or _satisfies(version, needed) or _built_elsewhere(version, needed)


def _satisfies(version: str, needed: Requirement) -> bool:
    """As pip sees it."""
    parsed = _parsed(version)
    return parsed is not None and needed.specifier.contains(parsed, prereleases=True)


def _built_elsewhere(version: str, needed: Requirement) -> bool:
    """Whether this is a PyTorch that serves although pip sorts it before the release: NVIDIA's 2.11.0a0+nv25.12."""
    parsed = _parsed(version) if canonicalize_name(needed.name) == "torch" else None
    if parsed is None or not parsed.is_prerelease or not parsed.local:
        return False
    return needed.specifier.contains(parsed.base_version)


def _parsed(version: str) -> Version | None:
    """None for what no version is: old packages have some."""
    try:
        return Version(version)
    except InvalidVersion:
        return None


def refused_by_pip(
    packages: Iterable[Package], extras: frozenset[str], there: Mapping[str, str | None], target: Target
) -> Requirement | None:
    """What of `packages` keeps pip from installing them beside the PyTorch there, though that serves."""
    version = there["torch"]
    asked = (needed for package in packages for needed in _asked_for(package, {"", *extras}, target))
    if version is None:
        return None
    return next((each for each in asked if not _satisfies(version, each) and _built_elsewhere(version, each)), None)


def listed(file: Path | None) -> dict[str, str | None]:
    """What is there: PyTorch, and what the file lists as `name==version`, or as a name alone: whatever version."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file else []
    except (OSError, ValueError) as error:
        sys.exit(f"the list of what is there cannot be read: {error}")
    pairs = [_LISTED.fullmatch(line.strip()) for line in lines]
    return {"torch": None} | {canonicalize_name(pair["name"]): pair["version"] for pair in pairs if pair}


def collect(own: Path, extras: frozenset[str], there: Mapping[str, str | None], target: Target) -> dict[str, str]:
    """Versions by name of what is put beside the package's wheel `own`."""
    packages = resolved([f"{_package_with(extras)} @ {own.resolve().as_uri()}"], target)
    kept = carried(packages, extras, there, target)
    del kept[PACKAGE]
    if kept:
        wanted = [f"{name}=={version}" for name, version in sorted(kept.items())]
        _pip("download", "--no-deps", f"--dest={own.parent}", *target.options(), *wanted)
    needed = refused_by_pip([packages[name] for name in (PACKAGE, *kept)], extras, there, target)
    if needed:
        print(
            f"torch {there['torch']} serves, but pip sorts it before {needed} and would refuse it: "
            "install these wheels with `--no-deps --target`, as docs/gpus.md says under “Without a network”"
        )
    return kept


def _package_with(extras: frozenset[str]) -> str:
    return f"{PACKAGE}[{','.join(sorted(extras))}]" if extras else PACKAGE


def _pip(command: str, *arguments: str) -> None:
    # its errors are shown as they come: it tries an index that is away for minutes, and says so meanwhile
    done = subprocess.run([sys.executable, "-m", "pip", command, *arguments], check=False, stdout=subprocess.PIPE)
    if done.returncode:
        # which requirements do not go together is no error to pip, but among what it tells of its work
        _, caused, conflict = done.stdout.decode(errors="replace").partition("The conflict is caused by:")
        reason = caused + conflict.partition("To fix this")[0].rstrip() + "\n" if caused else ""
        sys.exit(f"{reason}`pip {command}` failed, and says why above; the folder is as it was")


def refuse_foreign(folder: Path) -> None:
    """Stops where this may not write."""
    if folder.exists() and not folder.is_dir():
        sys.exit(f"{folder} is no folder")
    foreign = sorted({wheel.name for wheel in folder.glob("*.whl")} - _written(folder))
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        sys.exit(
            f"{folder} has wheels that `make wheels` has no record of writing ({', '.join(foreign[:3])}{more}): "
            "take them away, or name another folder"
        )


def replace(folder: Path, fresh: Path) -> None:
    """Puts the wheels of `fresh` in the place of those that an earlier run wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    old, new = _written(folder), {wheel.name for wheel in fresh.glob("*.whl")}
    # both at first: whatever a run that is killed here leaves is known as ours
    _write_down(folder, old | new)
    for name in sorted(new):
        shutil.move(fresh / name, folder / name)
    for wheel in folder.glob("*.whl"):
        if wheel.name in old - new:
            wheel.unlink()
    _write_down(folder, new)


def _written(folder: Path) -> set[str]:
    record = folder / _WRITTEN
    return set(record.read_text(encoding="utf-8").splitlines()) if record.is_file() else set()


def _write_down(folder: Path, names: Set[str]) -> None:
    (folder / _WRITTEN).write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")


def python_version(asked: str) -> str:
    """3.12 of `3.12` or `3.12.1`."""
    version = _PYTHON.fullmatch(asked.strip())
    if not version:
        sys.exit(f"Python {asked!r}: a version like 3.12 is needed (no wheels are made for free-threaded ones, 3.13t)")
    needed = _project()["requires-python"]
    if not SpecifierSet(needed).contains(version["minor"]):
        sys.exit(f"Python {asked}: the package needs {needed}")
    return version["minor"]


def known_extras(asked: str) -> frozenset[str]:
    """Those between commas, each one of the package's."""
    there_are = {canonicalize_name(name) for name in _project()["optional-dependencies"]}
    extras = frozenset(canonicalize_name(name.strip()) for name in asked.split(",") if name.strip())
    if extras - there_are:
        unknown = ", ".join(sorted(extras - there_are))
        sys.exit(f"the package has no extra {unknown}; there are {', '.join(sorted(there_are))}")
    return extras


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="version there, as 3.12")
    parser.add_argument("--extras", default="train", help="of the package, with commas between; may be empty")
    parser.add_argument("--machine", default="x86_64", help="what `uname -m` says there")
    parser.add_argument(
        "--glibc", type=int, default=28, help="2.X: what `ldd --version` says there; PyTorch's own needs 28"
    )
    parser.add_argument(
        "--there", type=Path, help="file of lines name==version, or name: what is there besides PyTorch"
    )
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "wheels", help="the folder")
    return parser.parse_args()


def main() -> None:
    asked = _options()
    target = Target(python_version(asked.python), asked.machine, asked.glibc)
    extras, there = known_extras(asked.extras), listed(asked.there)
    # a link's own folder may be on another disk
    folder = asked.to.resolve()
    refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as fresh:
        kept = collect(build(Path(fresh)), extras, there, target)
        replace(folder, Path(fresh))
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{asked.to}: this package's wheel and {len(kept)} more, {size / 1e6:.0f} MB in all")


if __name__ == "__main__":
    main()
