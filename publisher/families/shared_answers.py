"""Answers that are dear to compute: each question is worked on once, one at a time, for all who ask it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SharedAnswers(Generic[Answer]):
    """`answer(question)` is `work(question)`, kept for the last `kept` questions. Threads that ask the same at the same
    time share one run, its failure too, which is not kept."""

    def __init__(self, work: Callable[[str], Answer], *, kept: int) -> None:
        self._work, self._kept = work, kept
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._answers: OrderedDict[str, Future[Answer]] = OrderedDict()

    def answer(self, question: str) -> Answer:
        with self._lock:
            shared = self._answers.get(question)
            if shared is None:
                mine = self._answers[question] = Future()
            else:
                self._answers.move_to_end(question)
        if shared is not None:
            return shared.result()
        self._find_out(question, mine)
        return mine.result()

    def _find_out(self, question: str, outcome: Future[Answer]) -> None:
        try:
            with self._turn:
                outcome.set_result(self._work(question))
        except BaseException as failure:
            outcome.set_exception(failure)
            with self._lock:
                del self._answers[question]
            raise
        with self._lock:
            while len(self._answers) > self._kept and next(iter(self._answers.values())).done():
                self._answers.popitem(last=False)
