"""Files on their way to and from a Hub, as streams of bytes that somebody counts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from publisher.errors import InfrastructureFault, PublisherError
from publisher.manifest.manifest import FileRecord

_CHUNK = 4 << 20

#: hears how many bytes went by; may raise to stop the transfer
OnBytes = Callable[[int], None]


class CountedFile(io.BufferedReader):
    """A file open for reading that tells `on_bytes` of every read; huggingface_hub takes it as it is."""

    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        super().__init__(io.FileIO(path))
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._on_bytes(len(data))
        return data


@contextmanager
def sending(name: str) -> Iterator[None]:
    """What stopped an upload, as it was raised: huggingface_hub hides it behind RuntimeError or ValueError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__cause__, (PublisherError, HfHubHTTPError, httpx2.HTTPError)):
            raise error.__cause__ from None
        raise
    except ValueError as error:
        raise InfrastructureFault(f"The Hub did not take {name}: {error}") from error


def received(api: HfApi, repo_id: str, name: str, revision: str) -> Iterator[bytes]:
    """A published file's bytes, straight from the Hub; nothing is written to disk."""
    url = hf_hub_url(repo_id, name, revision=revision, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token) | {"Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        yield from response.iter_bytes(_CHUNK)


def received_record(chunks: Iterator[bytes], on_bytes: OnBytes) -> FileRecord:
    """Size and sha256 of what arrives."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        on_bytes(len(chunk))
    return FileRecord(size=size, sha256=digest.hexdigest())
