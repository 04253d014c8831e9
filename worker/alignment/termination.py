"""SIGTERM noticed at a good moment: first save, then do what the signal asks for."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Self


class DeferredSigterm:
    """Within the block SIGTERM only sets `received`; `deliver` hands it to whoever handled it before.

    That is by default the end of the process. Leaving the block delivers what was not. Outside of the main thread
    Python lets nobody handle signals, and nothing is deferred.
    """

    def __init__(self) -> None:
        self.received = False
        self._deferring = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
            self._deferring = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()
        if self.received:
            self.deliver()

    def deliver(self) -> None:
        """Send the signal on. From here on it is deferred no more."""
        self._restore()
        self.received = False
        signal.raise_signal(signal.SIGTERM)

    def _note(self, _number: int, _frame: object) -> None:
        self.received = True

    def _restore(self) -> None:
        if self._deferring:
            signal.signal(signal.SIGTERM, self._previous)
            self._deferring = False
