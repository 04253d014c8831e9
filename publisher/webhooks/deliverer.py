"""Sends what webhooks are told of: at least once each, however often processes die on the way.

Every API process runs one. What it takes is its own for as long as a try may last (publisher.store.webhook_deliveries);
what it has sent and not written down when it dies is sent again, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from publisher.settings import Settings
from publisher.store import webhook_deliveries
from publisher.store.database import Database
from publisher.store.faults import why_away
from publisher.store.states import DeliveryState
from publisher.store.webhook_deliveries import Claim, Tried
from publisher.webhooks.retries import Patience
from publisher.webhooks.sender import Answer, Message, Sender

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

#: seconds that a delivery is its taker's beyond the time that its receiver has
LEASE_MARGIN = 10.0
#: seconds that deliveries under way get when the process ends
STOP_SECONDS = 2.0
_FORGET_EVERY = 3600.0
_DAY = 86_400.0
_GONE = "its receiver answered 410 Gone."


class Deliverer:
    """A thread with an event loop of its own, so that no receiver slows down who serves requests."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._patience = Patience.of(settings)
        self._under_way: dict[asyncio.Task[Answer], Claim] = {}
        self._ended: list[Tried] = []
        self._forget_at = time.monotonic()
        self._asked_to_stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._rows = ThreadPoolExecutor(1, thread_name_prefix="webhook-rows")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when what was under way has ended, or was given back after a moment."""
        self._asked_to_stop.set()
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._rows.shutdown()

    async def _run(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        async with Sender(self._settings) as sender:
            while not self._asked_to_stop.is_set():
                await self._round(sender)
                await self._wait()
            await self._end()

    async def _round(self, sender: Sender) -> None:
        """Write down how tries ended, and begin new ones."""
        ended, self._ended = self._ended, []
        counted = Counter(claim.webhook.id for claim in self._under_way.values())
        claims = await self._ask(lambda: self._exchange(ended, counted))
        if claims is None:  # they may be tried twice, and are not forgotten
            self._ended = ended + self._ended
            return
        for claim in claims:
            self._under_way[asyncio.create_task(sender.send(_message(claim)))] = claim
        if time.monotonic() >= self._forget_at:
            age = self._settings.webhook_history_days * _DAY
            gone = await self._ask(lambda: self._forget(age))
            if not gone or gone < webhook_deliveries.BATCH:
                self._forget_at = time.monotonic() + _FORGET_EVERY

    async def _wait(self) -> None:
        """Until a try ends, or there may be something new."""
        assert self._stopping is not None
        stop = asyncio.create_task(self._stopping.wait())
        seconds = self._settings.webhook_poll_seconds
        await asyncio.wait({*self._under_way, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        self._collect()

    def _collect(self) -> None:
        for task in [task for task in self._under_way if task.done()]:
            claim = self._under_way.pop(task)
            bug = task.exception()
            if bug is not None:
                logger.error("delivery %s to webhook %s", claim.id, claim.webhook.id, exc_info=bug)
            answer = Answer(None, "the service could not send it; its log says why", 0.0) if bug else task.result()
            self._ended.append(judged(claim, answer, self._patience))

    async def _end(self) -> None:
        if self._under_way:
            await asyncio.wait({*self._under_way}, timeout=STOP_SECONDS)
        self._collect()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._ask(lambda: self._give_back(self._ended, list(self._under_way.values())))

    async def _ask(self, work: Callable[[], Result]) -> Result | None:
        """What `work` finds in the database, in a thread; None while that is away."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._rows, work)
        except SQLAlchemyError as error:
            logger.warning("webhooks wait: %s", why_away(error))
            return None

    def _exchange(self, ended: list[Tried], under_way: Counter[str]) -> list[Claim]:
        each, free = self._settings.webhook_concurrency_per_webhook, self._settings.webhook_concurrency
        free -= under_way.total()
        full = [id for id, count in under_way.items() if count >= each]
        with self._database.read() as session:
            due = webhook_deliveries.due_webhooks(session, full, free)
        if not ended and not due:
            return []
        with self._database.write() as session:
            if ended:
                webhook_deliveries.settle(session, ended, self._patience.disable)
            room = {id: each - under_way[id] for id in due}
            lease = self._settings.webhook_timeout_seconds + LEASE_MARGIN
            return webhook_deliveries.claim(session, room, free, lease)

    def _forget(self, seconds: float) -> int:
        with self._database.write() as session:
            return webhook_deliveries.forget_old(session, seconds)

    def _give_back(self, ended: list[Tried], claims: list[Claim]) -> None:
        with self._database.write() as session:
            if ended:
                webhook_deliveries.settle(session, ended, self._patience.disable)
            webhook_deliveries.release(session, claims)


def _message(claim: Claim) -> Message:
    hook, event = claim.webhook, claim.event
    sealed = [hook.secret]
    if hook.previous_secret is not None and (hook.previous_until or 0.0) > claim.claimed_at:
        sealed.append(hook.previous_secret)
    return Message(hook.url, hook.id, event.id, event.type, event.at, event.data, sealed)


def judged(claim: Claim, answer: Answer, patience: Patience) -> Tried:
    """What becomes of a delivery after this answer."""
    told = (answer.status, answer.error, answer.seconds)
    if answer.error is None:
        return Tried(claim, DeliveryState.DELIVERED, None, *told)
    waited = claim.claimed_at + answer.seconds - claim.asked_at
    if answer.gone or waited >= patience.give_up:
        return Tried(claim, DeliveryState.FAILED, None, *told, disable=_GONE if answer.gone else None)
    return Tried(claim, DeliveryState.PENDING, patience.pause(claim.attempts, answer.retry_after), *told)
