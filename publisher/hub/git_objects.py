"""Object ids as git computes them: clients compare them with hashes of their local files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def blob_id(content: bytes) -> str:
    return _object_id(b"blob", content)


def pointer(sha256: str, size: int) -> bytes:
    """The text that git keeps in place of an LFS file of `size` bytes."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(blob_ids: Mapping[str, str]) -> dict[str, str]:
    """Ids of all folders of a tree, from path → blob id. The root's path is ""."""
    folders: dict[str, dict[str, tuple[bytes, str]]] = {"": {}}
    for path, oid in blob_ids.items():
        _enclosing(folders, path)[path.rsplit("/", 1)[-1]] = (b"100644", oid)
    ids: dict[str, str] = {}
    # Children have longer paths than their folder, so their ids are known when it is its turn.
    for folder in sorted(folders, key=lambda name: (name != "", name.count("/")), reverse=True):
        ids[folder] = _tree_id(folders[folder])
        if folder:
            _enclosing(folders, folder)[folder.rsplit("/", 1)[-1]] = (b"40000", ids[folder])
    return ids


def _enclosing(folders: dict[str, dict[str, tuple[bytes, str]]], path: str) -> dict[str, tuple[bytes, str]]:
    """The entries of the folder that `path` is in; creates it and those above it."""
    parent = path.rpartition("/")[0]
    if parent not in folders:
        folders[parent] = {}
        _enclosing(folders, parent)
    return folders[parent]


def _tree_id(entries: Mapping[str, tuple[bytes, str]]) -> str:
    # Git sorts a folder as if its name ended with a slash.
    ordered = sorted(entries.items(), key=lambda entry: entry[0].encode() + (b"/" if entry[1][0] == b"40000" else b""))
    return _object_id(
        b"tree", b"".join(mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in ordered)
    )


def _object_id(kind: bytes, content: bytes) -> str:
    header = kind + b" " + str(len(content)).encode() + b"\0"
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
