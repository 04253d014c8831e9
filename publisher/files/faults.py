"""What goes wrong with files that people name: whose fault it is, and what stands in a file's place."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from publisher.errors import InfrastructureFault, PublisherError, RequestFault

#: What is wrong with the file or its path itself. Trying again does not help, and no other machine is to blame: where
#: workers run on several machines, whoever registers a path has to have it on all of them.
_OF_THE_REQUEST = {
    errno.ENOENT: "does not exist on this machine",
    errno.ENOTDIR: "does not exist on this machine",
    errno.EACCES: "may not be read by this process",
    errno.EPERM: "may not be read by this process",
    errno.EISDIR: "is a folder",
    errno.ELOOP: "is a link that leads back to itself",
    errno.ENAMETOOLONG: "has a name that is too long",
}

_LFS = "is a Git LFS pointer, not the file itself.", "Fetch the file with `git lfs pull`."
_ANNEX = "is a git-annex pointer, not the file itself.", "Fetch the file with `git annex get`."
_UTF16 = "is UTF-16, not UTF-8.", "Convert it: `iconv -f UTF-16 -t UTF-8 OLD > NEW`."
_UTF32 = "is UTF-32, not UTF-8.", "Convert it: `iconv -f UTF-32 -t UTF-8 OLD > NEW`."
POINTERS = {b"version https://git-lfs.github.com/spec/": _LFS, b"/annex/objects/": _ANNEX}
#: longest first: UTF-32's mark begins like UTF-16's
OTHER_ENCODINGS = {b"\xff\xfe\0\0": _UTF32, b"\0\0\xfe\xff": _UTF32, b"\xff\xfe": _UTF16, b"\xfe\xff": _UTF16}

Foreign = dict[bytes, tuple[str, str]]


@contextmanager
def file_faults(name: str, *, field: str | None = "path", fault: type[RequestFault] = RequestFault) -> Iterator[None]:
    """Put what the operating system says of a file into words: `fault` for what is wrong with the file itself,
    InfrastructureFault for disks and network file systems, after which trying again may help."""
    try:
        yield
    except OSError as error:
        raise fault_of(name, error, field=field, fault=fault) from error


def fault_of(
    name: str, error: OSError, *, field: str | None = "path", fault: type[RequestFault] = RequestFault
) -> PublisherError:
    """What `file_faults` raises for `error`."""
    wrong = _OF_THE_REQUEST.get(error.errno or 0)
    if wrong is None:
        return InfrastructureFault(
            f"{name} could not be read: {error}.", way_out="Check the disk or network file system, then try again."
        )
    return fault(
        f"{name} {wrong}.",
        field=field,
        way_out="Put it where it was named, readable on every machine that works with it, then try again.",
    )


def refuse_foreign(
    name: str, head: bytes, foreign: Foreign, *, field: str | None = "path", fault: type[RequestFault] = RequestFault
) -> None:
    """`fault` if a file that begins with `head` is none of its kind, but one of `foreign`."""
    for beginning, (what, way_out) in foreign.items():
        if head.startswith(beginning):
            raise fault(f"{name} {what}", field=field, way_out=way_out)


def decoded(name: str, data: bytes, *, field: str | None = "path", fault: type[RequestFault] = RequestFault) -> str:
    """A whole file's text, without its byte order mark; `fault` says which byte of which line is not UTF-8."""
    refuse_foreign(name, data[:4], OTHER_ENCODINGS, field=field, fault=fault)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start
        line = data.count(b"\n", 0, start) + 1
        raise not_utf8(f"{name}, line {line}", data[start], start, "file", field=field, fault=fault) from error


def not_utf8(
    place: str,
    byte: int,
    offset: int,
    of: str,
    *,
    field: str | None = "path",
    fault: type[RequestFault] = RequestFault,
) -> RequestFault:
    return fault(
        f"{place} is not UTF-8: byte 0x{byte:02x} at offset {offset:,} of the {of}.",
        field=field,
        way_out="Convert it to UTF-8, for example `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW`.",
    )
