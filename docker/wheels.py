"""A folder of wheels for a machine without network: this checkout's own, and those of all that it asks for.

    make wheels PYTHON_VERSION=3.12 EXTRAS=train
    python docker/wheels.py --python 3.12 --extras train,sign --there there.txt --to FOLDER

PyTorch is left out, with what only PyTorch asks for: such machines have a build of their own. `--there` names more that
is there (`pip list --format=freeze`, run there); each is left out where its version serves. Versions are those of
constraints.txt, which the tests ran with. What to install is pip's answer, from the index that it is set up for.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = "loram-publisher"
#: what the package is built from; a copy, so that nothing an earlier build left in the checkout gets into it
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "publisher", "worker", "migrations")
#: names of manylinux before they had glibc's version in them
_OLDER = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
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

    there: versions by name; None stands for one that serves. Stops where PyTorch there is too old, or where the machine
    needs what pip did not think of here.
    """
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
    return version is None or needed.specifier.contains(version, prereleases=True)


def listed(file: Path | None) -> dict[str, str | None]:
    """What is there: PyTorch, and what the file lists as `name==version`, or as a name alone: whatever version."""
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
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
    return kept


def _package_with(extras: frozenset[str]) -> str:
    return f"{PACKAGE}[{','.join(sorted(extras))}]"


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="version there, as 3.12")
    parser.add_argument("--extras", default="train", help="of the package, with commas between")
    parser.add_argument("--machine", default="x86_64", help="what `uname -m` says there")
    parser.add_argument(
        "--glibc", type=int, default=28, help="2.X: what `ldd --version` says there; PyTorch's own needs 28"
    )
    parser.add_argument(
        "--there", type=Path, help="file of lines name==version, or name: what is there besides PyTorch"
    )
    parser.add_argument(
        "--to", type=Path, default=ROOT / "build" / "wheels", help="the folder; wheels in it are replaced"
    )
    return parser.parse_args()


def main() -> None:
    asked = _options()
    asked.to.mkdir(parents=True, exist_ok=True)
    for old in asked.to.glob("*.whl"):
        old.unlink()
    extras = frozenset(filter(None, asked.extras.split(",")))
    target = Target(asked.python, asked.machine, asked.glibc)
    kept = collect(build(asked.to), extras, listed(asked.there), target)
    size = sum(wheel.stat().st_size for wheel in asked.to.glob("*.whl"))
    print(f"{asked.to}: this package's wheel and {len(kept)} more, {size / 1e6:.0f} MB in all")


if __name__ == "__main__":
    main()
