"""`model.sig`: who published a checkpoint, by OpenSSF model signing (v1.0, https://github.com/ossf/model-signing-spec).

A Sigstore bundle beside the files: an in-toto statement with the sha256 of every other file, the manifest among them,
signed with a key of an elliptic curve. The statement says which paths are no part of the model, so that `model_signing
verify key` takes a folder as a Hub's client leaves it. Needs the extra `sign`, whose library does the cryptography.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.files.faults import file_faults
from publisher.manifest.manifest import FileRecord

if TYPE_CHECKING:  # cryptography comes with the extras
    from publisher.configuration.signing_key import ModelKey

FILE_NAME = "model.sig"
#: what Hubs and their clients put beside a model: never loaded, and not the publisher's to sign
IGNORED = (FILE_NAME, ".cache", ".git", ".gitattributes", ".github", ".gitignore")

_MISMATCH = "Signature mismatch: "


def sign(folder: Path, name: str, files: Mapping[str, FileRecord], key: ModelKey) -> None:
    """Write `folder/model.sig` over `files`, which are all that `folder` has beside; `name` calls the model.

    Their digests are those that were just computed for the manifest: nothing is read again.
    """
    from model_signing import hashing, manifest, signing

    digest = hashing.hashing.Digest
    kind = manifest.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": list(IGNORED)}
    )
    items = [kind.new_item(path, digest("sha256", bytes.fromhex(file.sha256))) for path, file in files.items()]

    class Known(hashing.Config):  # type: ignore[misc]
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> Any:
            return manifest.Manifest(name, items, kind)

    with _readable(key.pem) as path:
        config = signing.Config().use_elliptic_key_signer(private_key=path)
    config.set_hashing_config(Known()).sign(folder, folder / FILE_NAME)


def key_id(public_key: Path) -> str:
    """Of a public key in a PEM file, by which signatures name it. Raises RequestFault for another file."""
    from publisher.configuration.signing_key import public_key_id

    with file_faults(str(public_key), field=None):
        return public_key_id(public_key.read_bytes(), str(public_key))


def problem(folder: Path, public_key: Path) -> str | None:
    """Why the checkpoint in `folder` is not what the owner of `public_key` (a PEM file) signed, a sentence; None: it
    is, with nothing changed, missing or added. Reads every file."""
    from cryptography.exceptions import InvalidSignature
    from model_signing import hashing, verifying

    if not (folder / FILE_NAME).is_file():
        return f"{FILE_NAME} is missing: the checkpoint is not signed."
    # a Hub's cache has links to files
    hashed = hashing.Config().set_ignored_paths(paths=list(IGNORED)).set_allow_symlinks(True)
    config = verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(hashed)
    try:
        with redirect_stdout(StringIO()):  # it warns there
            config.verify(folder, folder / FILE_NAME)
    except InvalidSignature:
        return f"{FILE_NAME} is not genuine: the key has not signed what it says."
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        return _words(error)
    return None


def _words(error: Exception) -> str:
    """What the library raises for a signature of other files or of another key, and for what is no signature."""
    said = str(error)
    if said.startswith("Key mismatch"):
        return f"{FILE_NAME} was made with another key than this one."
    if not said.startswith(_MISMATCH):
        return f"{FILE_NAME} cannot be read as a signature ({type(error).__name__}: {' '.join(said.split())[:200]})."
    differences = (_difference(text) for text in ast.literal_eval(said.removeprefix(_MISMATCH)))
    return f"{FILE_NAME} is of other files: {'; '.join(differences)}."


def _difference(said: str) -> str:
    """`Hash mismatch for 'a': Expected …`, `Extra files found in model 'm': a, b`, `Missing files in model 'm': c`."""
    what, _, names = said.partition(": ")
    if what.startswith("Hash mismatch for "):
        return f"{what.removeprefix('Hash mismatch for ').strip(chr(39))} was changed"
    return f"{names} {'was added' if what.startswith('Extra') else 'is missing'}"


@contextmanager
def _readable(text: str) -> Iterator[str]:
    """A path that a library reads `text` from, once, without its being on any disk."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "w", encoding="ascii") as pipe:
            pipe.write(text)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)
