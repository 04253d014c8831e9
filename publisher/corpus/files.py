"""Which files of a folder are a corpus's text: not what systems, editors and writers of data leave beside it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import RequestFault
from publisher.files.faults import fault_of, file_faults

ENDINGS = (".jsonl.gz", ".jsonl", ".parquet", ".txt")
#: folders that Spark, Delta Lake, macOS' archiver and Python keep for themselves; a dot hides the others
_NOT_TEXT = {"_temporary", "_spark_metadata", "_delta_log", "__MACOSX", "__pycache__", "lost+found"}
_NAMED = 5

_NAME_TEXT = "Name a file of one of these kinds, or a folder that holds some."
_JSON = "A JSON array becomes JSON Lines by `jq -c '.[]' OLD.json > NEW.jsonl`; rename what has one object a line."
_WAYS_OUT = {
    ".json": _JSON,
    ".ndjson": "Rename it to .jsonl.",
    ".csv": "Convert it to Parquet or JSON Lines.",
    ".tsv": "Convert it to Parquet or JSON Lines.",
    ".zst": "Unpack it, or pack it as .jsonl.gz.",
    ".bz2": "Unpack it, or pack it as .jsonl.gz.",
    ".xz": "Unpack it, or pack it as .jsonl.gz.",
    ".zip": "Unpack it.",
    ".gz": "Unpack it, or name it .jsonl.gz if it is JSON Lines.",
    ".md": "Name it .txt to have it read as one document.",
}


@dataclass(frozen=True)
class TextFile:
    """`name`: as people know it, from the corpus's folder on."""

    path: Path
    name: str

    @property
    def ending(self) -> str:
        found = ending_of(self.path)
        assert found is not None, "only such files are text files"
        return found

    def signature(self) -> tuple[int, int, int]:
        """Another one when the file was written to or replaced."""
        with file_faults(self.name):
            found = self.path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


def ending_of(path: Path) -> str | None:
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def text_files(root: Path) -> list[TextFile]:
    """The text files of a folder, or the one file, in a fixed order.

    RequestFault if there are none, or if one is no file: a link to nothing, a pipe, a device.
    """
    with file_faults(str(root)):
        if not root.exists():
            raise RequestFault(f"{root} does not exist.", field="path", way_out="Name a file or folder.")
        files = [root] if not root.is_dir() else _walk(root)
    text = [TextFile(path, _name(path, root)) for path in files if ending_of(path)]
    if not text:
        raise _no_text(root, files)
    for file in text:
        _refuse_no_file(file)
    return text


def _name(path: Path, root: Path) -> str:
    return path.name if path == root else str(path.relative_to(root))


def _walk(root: Path) -> list[Path]:
    """Every visible file below; a folder that cannot be entered is an error, not left out."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [Path(folder, name) for name in files if not _hidden(name)]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise fault_of(f"the folder {error.filename}", error) from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith("~") or name in _NOT_TEXT or (name[0] == name[-1] == "#")


def _no_text(root: Path, files: list[Path]) -> RequestFault:
    found = f" Found: {', '.join(_name(path, root) for path in files[:_NAMED])}." if files else ""
    way_out = next((_WAYS_OUT[path.suffix.lower()] for path in files if path.suffix.lower() in _WAYS_OUT), _NAME_TEXT)
    what = (
        f"holds no {', '.join(sorted(ENDINGS))} file" if root.is_dir() else f"is none of {', '.join(sorted(ENDINGS))}"
    )
    return RequestFault(f"{root} {what}.{found if root.is_dir() else ''}", field="path", way_out=way_out)


def _refuse_no_file(file: TextFile) -> None:
    """Opening a pipe would wait for ever, a device has no end, and what a link to nothing meant would be missing."""
    if file.path.is_symlink() and not file.path.exists():
        target = os.readlink(file.path)
        raise RequestFault(
            f"{file.name} is a link to {target}, which does not exist.",
            field="path",
            way_out="Fetch what it stands for, or remove the link.",
        )
    with file_faults(file.name):
        mode = file.path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise RequestFault(
            f"{file.name} is a pipe, socket or device, not a file.",
            field="path",
            way_out="Write its content to a file.",
        )
