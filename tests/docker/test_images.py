"""The Dockerfiles: bases pinned, nobody is root, nothing is copied that is not there or that is secret."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
IMAGES = ("api", "worker-cpu", "worker-cuda")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(COPY, its arguments) and so on, with continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text()).replace("\\\n", " ")
    split = (line.split(None, 1) for line in text.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, rest in split]


def arguments(dockerfile: Path, name: str) -> list[str]:
    return [rest for instruction, rest in instructions(dockerfile) if instruction == name]


def pinned(dockerfile: Path) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in arguments(dockerfile, "ARG"))


def copied_from_the_repository(dockerfile: Path) -> list[str]:
    words = [shlex.split(rest) for rest in arguments(dockerfile, "COPY") if not rest.startswith("--from=")]
    return [path for sources in words for path in sources[:-1]]


def let_into_a_build(path: str) -> bool:
    """Whether .dockerignore, of which the last line that fits decides, lets a file or folder of the root in."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            if fnmatch(path, pattern) or path.startswith(f"{pattern}/"):
                kept = line.startswith("!")
    return kept


def constraints() -> dict[str, str]:
    lines = (ROOT / "docker" / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_there_is_one_dockerfile_per_image() -> None:
    assert tuple(path.name.removesuffix(".Dockerfile") for path in DOCKERFILES) == IMAGES


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
class TestDockerfile:
    def test_its_base_is_pinned_to_a_version(self, dockerfile: Path) -> None:
        assert {rest.split()[0] for rest in arguments(dockerfile, "FROM")} == {"${BASE}"}
        assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+-[a-z0-9.-]+", pinned(dockerfile)["BASE"])

    def test_its_last_user_is_not_root(self, dockerfile: Path) -> None:
        last_stage = instructions(dockerfile)
        last_stage = last_stage[max(at for at, (name, _) in enumerate(last_stage) if name == "FROM") :]
        users = [rest for name, rest in last_stage if name == "USER"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
        after = last_stage[last_stage.index(("USER", users[-1])) :]
        assert not any(name == "RUN" for name, _ in after)

    def test_what_it_copies_is_there_and_let_into_a_build(self, dockerfile: Path) -> None:
        copied = copied_from_the_repository(dockerfile)
        assert "publisher" in copied
        for path in copied:
            assert (ROOT / path).exists(), path
            assert let_into_a_build(path), path

    def test_it_takes_no_secret_in(self, dockerfile: Path) -> None:
        named = [rest for name in ("ARG", "ENV") for rest in arguments(dockerfile, name)]
        assert not re.search(r"(?i)token|password|secret|_key", " ".join(named))

    def test_packages_are_installed_at_tested_versions(self, dockerfile: Path) -> None:
        installs = re.findall(r"pip install ([^&\n]*)", " ".join(arguments(dockerfile, "RUN")))
        assert installs
        for install in installs:
            assert "--constraint docker/constraints.txt" in install or "--no-deps" in install


def test_the_image_of_the_api_has_no_worker() -> None:
    api, *workers = (set(copied_from_the_repository(path)) for path in DOCKERFILES)
    assert "worker" not in api
    assert all("worker" in copied for copied in workers)


def test_data_environments_and_secrets_do_not_get_into_a_build() -> None:
    for path in ("data", ".venv", ".git", ".env", "docker/secrets", "docker/secrets/api-key", "tests"):
        assert not let_into_a_build(path), path


def test_constraints_pin_whatever_the_images_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["train"], *extras["service"], *extras["lm-eval"], *extras["sign"]):
        needed = Requirement(text)
        if needed.name == project["name"]:  # one extra asks for another
            continue
        version = constraints().get(canonicalize_name(needed.name))
        assert version is not None, f"{needed.name} is not in docker/constraints.txt: run docker/constraints.py"
        assert needed.specifier.contains(version), f"{text}: constraints.txt has {version}; run docker/constraints.py"
