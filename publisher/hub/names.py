"""Names that come from outside and become paths on disk: repositories, files, branches and tags."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from publisher.hub.faults import BadRequest

_PART = re.compile(r"\w(?:[\w\-.]{0,94}\w)?", re.ASCII)
_REFERENCE = re.compile(r"\w(?:[\w./-]{0,98}\w)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNFIT = re.compile(r'[:*?"<>|]')
_LINE_BREAK = re.compile(r"[\x80-\x9f\u2028\u2029]")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
# a file name has 255 bytes; clients need `.metadata` behind it
_MAX_PART_BYTES = 246
_RIGHT_LENGTH = f"Use at most {_MAX_PART_BYTES} bytes in each part and 1024 in all."
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


def check_namespace(text: str) -> str:
    """Returns `text` if repositories may lie in a namespace of that name; raises BadRequest otherwise."""
    try:
        return RepositoryId.parse(f"{text}/x").namespace
    except BadRequest as error:
        raise BadRequest(f"{text!r} cannot be a namespace of the Hub.", way_out=error.way_out) from error


def check_file_path(path: str) -> str:
    """Returns `path` if it is a plain relative path inside a repository; raises BadRequest otherwise."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise _bad_path(path, "Use a relative path such as 'folder/file' without empty, '.' or '..' parts.")
    if "\\" in path or _CONTROL.search(path):
        raise _bad_path(path, "Use '/' between folders, and no backslashes or control characters.")
    if any(part.lower() == ".git" for part in parts):
        raise _bad_path(path, "Nothing can be stored under '.git'.")
    if len(path.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        raise _bad_path(path, _RIGHT_LENGTH)
    return path


def check_new_path(path: str) -> str:
    """Like `check_file_path`, for what is added: every client must be able to download it, whatever its file system.

    huggingface_hub refuses names with a drive (`a:b.txt`), also within a snapshot of a whole repository, and keeps
    notes of its own beside a file, whose names are longer by 9 bytes; Windows has the rest of the rules.
    """
    check_file_path(path)
    parts = path.split("/")
    if any(part.lower() == ".cache" for part in parts):
        raise _bad_path(path, "Clients keep their own files under '.cache', and upload nothing from there.")
    if _UNFIT.search(path):
        raise _bad_path(
            path, 'Windows cannot hold names with any of : * ? " < > |, and clients refuse them: rename it.'
        )
    if _LINE_BREAK.search(path):
        raise _bad_path(path, "Use no control characters or line breaks.")
    if any(part.endswith((".", " ")) or part.startswith(" ") for part in parts):
        raise _bad_path(
            path, "Names must not begin or end with a space, nor end with a dot: some file systems drop it."
        )
    if any(_DEVICE.fullmatch(part) for part in parts):
        raise _bad_path(path, "Windows keeps con, prn, aux, nul, com1 and so on for devices. Rename it.")
    if any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise _bad_path(path, _RIGHT_LENGTH)
    return path


def path_key(path: str) -> str:
    """Equal for paths that some file systems take for one: they differ in case, or in how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


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
