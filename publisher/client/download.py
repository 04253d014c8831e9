"""A file that is fetched over as many connections as it takes. Nothing here sends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from publisher.client.exchange import problem

Progress = Callable[[int, int], None]


class Download:
    """Writes pieces beside `target`, which is there when it is whole. `progress` takes bytes done and in all."""

    def __init__(self, target: Path, progress: Progress | None = None) -> None:
        self._target = target
        self._partial = target.with_name(f"{target.name}.partial")
        self._progress = progress or (lambda done, total: None)
        self._done, self._total = 0, 0

    def __enter__(self) -> Self:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if error is None:
            self._partial.replace(self._target)
        else:
            self._partial.unlink()

    @property
    def headers(self) -> dict[str, str]:
        """What is still wanted."""
        return {"Range": f"bytes={self._done}-"} if self._done else {}

    def begins(self, response: httpx.Response) -> None:
        """Raises what the service refuses with; its body has been read then."""
        if response.is_error:
            raise problem(response)
        if response.status_code != 206:  # from its beginning
            self._file.seek(0)
            self._file.truncate()
            self._done = 0
        self._total = self._done + int(response.headers.get("content-length", 0))

    def takes(self, piece: bytes) -> None:
        self._file.write(piece)
        self._done += len(piece)
        self._progress(self._done, self._total)
