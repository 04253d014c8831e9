"""The border to what the request names: base model, tokenizer, text, tasks. What is wrong with its files is its fault.

Libraries say it in every class there is (tokenizers and sentencepiece have none of their own), so whatever they raise
is the file's doing, but for what is known to be the machine's.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publisher.errors import PublisherError, RequestFault
from publisher.files.faults import fault_of

#: a full disk, a quota or a file-size limit, of whoever writes meanwhile
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: by name, since torch is not to be imported for it
_MACHINE_ERRORS = {"OutOfMemoryError", "AcceleratorError"}
_MACHINE_WORDS = re.compile(r"can't allocate memory|CUDA error|CUDA out of memory|No space left")
#: the folder of a stage, named by its digest; what fetch left is still the request's
_STAGE = re.compile(r"(?!fetch-)[a-z]+-[0-9a-f]{32}")
_SHOWN_CHARACTERS = 300

#: what most of it is part of
BASE = "the base model"
_PUT_BACK = "Put it back, or register it again."


@contextmanager
def reading(
    what: str,
    place: Path,
    *,
    field: str | None = None,
    way_out: str = "Fetch or save the file again.",
) -> Iterator[None]:
    """Within, `place` is read, which is `what` of the request: RequestFault names both and what is wrong.

    Passed on as they are: what is in words already, what the machine lacks (memory, a device, disk), and whatever is
    wrong with files that a stage here wrote.
    """
    try:
        yield
    except PublisherError:
        raise
    except Exception as error:
        if is_of_the_machine(error) or is_made_here(place) or _was_taken_away(error):
            raise
        raise _in_words(what, place, error, field, way_out) from error


def is_of_the_machine(error: BaseException) -> bool:
    """Whether no file can be blamed, whatever was being read."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    known = isinstance(error, MemoryError) or type(error).__name__ in _MACHINE_ERRORS
    return known or bool(_MACHINE_WORDS.search(str(error)))


def is_made_here(place: Path) -> bool:
    """Whether `place` lies in what a stage wrote from the request's files, rather than in those."""
    return any(_STAGE.fullmatch(part) for part in place.parts)


def _was_taken_away(error: Exception) -> bool:
    """Of what fetch laid down: not even the name is there any more. A link that leads nowhere is the request's."""
    name = error.filename if isinstance(error, FileNotFoundError) else None
    return isinstance(name, str) and "/fetch-" in name and not os.path.lexists(name)


def _in_words(what: str, place: Path, error: Exception, field: str | None, way_out: str) -> PublisherError:
    if isinstance(error, FileNotFoundError):
        missing = Path(error.filename).name if isinstance(error.filename, str) else place.name
        return RequestFault(f"{missing} of {what} is missing.", field=field, way_out=_PUT_BACK)
    if isinstance(error, OSError) and error.errno is not None:
        return fault_of(f"{place.name} of {what}", error, field=field)
    wrong = f"{what} cannot be loaded" if place.is_dir() else f"{place.name} of {what} is damaged"
    return RequestFault(f"{wrong}: {_said(error)}.", field=field, way_out=way_out)


def _said(error: Exception) -> str:
    """What a library says, on one line; a KeyError's words are a key alone."""
    words = " ".join(str(error).split())[:_SHOWN_CHARACTERS].rstrip(".")
    known = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("safetensors")
    return words if known and words else f"{type(error).__name__} {words}".strip()
