"""Names that come from outside and become paths on disk: repositories, files, branches and tags."""

from __future__ import annotations

import re
from dataclasses import dataclass

from publisher.hub.faults import BadRequest

_PART = re.compile(r"\w(?:[\w\-.]{0,94}\w)?", re.ASCII)
_REFERENCE = re.compile(r"\w(?:[\w./-]{0,98}\w)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# First segments of the Hub's own URLs; a namespace of that name could not be addressed.
RESERVED_NAMESPACES = frozenset({"api", "datasets", "spaces", "models", "kernels", "buckets"})
_RIGHT_ID = (
    "Use namespace/name with at most 96 letters, digits, '-', '_' or '.' each, not starting or ending with '-' or '.', "
    "without '--' or '..', not ending in '.git'."
)


@dataclass(frozen=True, order=True)
class RepositoryId:
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> RepositoryId:
        """Reads "namespace/name" by the rules of `huggingface_hub.utils.validate_repo_id`.

        Raises BadRequest, which says what would be right.
        """
        parts = text.split("/")
        if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts):
            raise BadRequest(f"{text!r} is not a repository id.", field="repo_id", way_out=_RIGHT_ID)
        if "--" in text or ".." in text or text.endswith(".git"):
            raise BadRequest(f"{text!r} is not a repository id.", field="repo_id", way_out=_RIGHT_ID)
        if parts[0].lower() in RESERVED_NAMESPACES:
            raise BadRequest(
                f"Namespace {parts[0]!r} is reserved.",
                field="repo_id",
                way_out=f"Use another one than {', '.join(sorted(RESERVED_NAMESPACES))}.",
            )
        return cls(*parts)


def check_file_path(path: str) -> str:
    """Returns `path` if it is a plain relative path inside a repository; raises BadRequest otherwise."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _bad_path(path, "Use a relative path such as 'folder/file' without empty, '.' or '..' parts.")
    if any(part.lower() == ".git" for part in parts):
        raise _bad_path(path, "Nothing can be stored under '.git'.")
    if "\\" in path or _CONTROL.search(path):
        raise _bad_path(path, "Use '/' between folders, and no backslashes or control characters.")
    if len(path.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        raise _bad_path(path, "Use at most 255 bytes in each part and 1024 in all.")
    return path


def _bad_path(path: str, way_out: str) -> BadRequest:
    shown = path if len(path) <= 200 else path[:200] + "…"
    return BadRequest(f"{shown!r} is not a path in a repository.", field="path", way_out=way_out)


def check_reference_name(name: str) -> str:
    """Returns `name` if a branch or tag may have it; raises BadRequest otherwise."""
    if not is_reference_name(name):
        raise BadRequest(
            f"{name[:200]!r} is not a name for a branch or tag.",
            field="revision",
            way_out="Use letters, digits, '-', '_', '.' and single '/', at most 100, and no commit id.",
        )
    return name


def is_reference_name(name: str) -> bool:
    broken = ".." in name or "//" in name or "/." in name or "./" in name or name.endswith(".lock")
    # `refs/heads/main` is another way to say `main`.
    broken = broken or name.startswith("refs/")
    return not broken and _REFERENCE.fullmatch(name) is not None and not is_commit_id(name)


def is_commit_id(text: str) -> bool:
    return _COMMIT.fullmatch(text) is not None
