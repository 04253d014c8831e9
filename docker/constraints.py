"""Print what the images install, as pip constraints: the versions of this environment, in which the tests passed.

.venv/bin/python docker/constraints.py > docker/constraints.txt
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PACKAGE, EXTRAS = "loram-publisher", frozenset({"service", "lm-eval", "otel", "sign"})


def versions() -> dict[str, str]:
    """By name, of everything that the package asks for with those extras, and what that asks for in turn."""
    found: dict[str, str] = {}
    asked: dict[str, set[str]] = {}
    waiting = [(PACKAGE, EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        fresh = {"", *extras} - asked.setdefault(name, set())
        try:
            package = distribution(name)
        except PackageNotFoundError:  # a marker's: for another platform
            continue
        if not fresh:
            continue
        asked[name] |= fresh
        found[name] = Version(package.version).public  # 2.13.0+cpu: which build is the image's choice
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in fresh):
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    del found[PACKAGE]
    return found


if __name__ == "__main__":
    print("# made by docker/constraints.py")
    for name, version in sorted(versions().items()):
        print(f"{name}=={version}")
